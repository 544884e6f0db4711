# SPDX-License-Identifier: MIT
"""Stands in for an NDIF server: reads requests from a pipe and runs them on a model of its own. Started as a script,
where neither this project nor what only its tests import can be reached. Argument: the model's folder."""

import importlib.util
import io
import struct
import sys
import traceback

import nnsight.tracing.tracer as tracing
import torch
from nnsight import TransformersModel
from nnsight.schema.request import RequestModel
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(folder: str) -> None:
    replies, sys.stdout = sys.stdout.buffer, sys.stderr
    model = AutoModelForCausalLM.from_pretrained(folder)
    lm = TransformersModel(model, tokenizer=AutoTokenizer.from_pretrained(folder), task="text-generation")
    assert importlib.util.find_spec("helpers") is None, "a server has nothing of this project"
    while head := sys.stdin.buffer.read(8):
        blob = sys.stdin.buffer.read(struct.unpack("<q", head)[0])
        try:
            reply = b"\0" + answer(lm, blob)
        except BaseException:
            reply = b"\1" + traceback.format_exc().encode()
        replies.write(struct.pack("<q", len(reply)) + reply)
        replies.flush()


def answer(lm: TransformersModel, blob: bytes) -> bytes:
    """What a request saves, as bytes; the same steps as nnsight's own local execution of a trace."""
    tracer = RequestModel.deserialize(blob, lm._remoteable_persistent_objects())
    tracing.inc()
    try:
        tracer.execute(tracer.info.code)
        saved = set(tracing._saves())
    finally:
        tracing.dec()
    unwanted = [name for name in sys.modules if name.partition(".")[0] in ("helpers", "jaxtyping")]
    assert not unwanted, f"the request imported {unwanted}"
    found = {name: value for name, value in tracer.info.frame.f_locals.items() if id(value) in saved}
    file = io.BytesIO()
    torch.save(found, file)
    return file.getvalue()


if __name__ == "__main__":
    main(sys.argv[1])
