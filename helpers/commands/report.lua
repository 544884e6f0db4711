-- SPDX-License-Identifier: MIT
-- Pandoc's filter of the report: the cells of all notebooks become one text, with ids, links and captions of our own.
-- What a cell wrote, perhaps in a model's words, stays text: no tag, link, picture, heading or formula is made of it.

local words = pandoc.utils.stringify
local word = FORMAT == "docx" -- shows no code, and makes all columns of a table equal unless it is told their widths
local chapter, headings = "", 0
local harmless = {}
for kind in ("Plain Para BulletList OrderedList BlockQuote CodeBlock HorizontalRule Table " ..
    "Str Space SoftBreak LineBreak Strong Emph Code"):gmatch("%a+") do harmless[kind] = true end

local function widths(tab) -- shares of the columns, by their longest words and (square root) texts
  local rows, asked, sum = tab.head.rows:clone(), {}, 0
  for _, body in ipairs(tab.bodies) do rows:extend(body.body) end
  for column = 1, #tab.colspecs do
    asked[column] = 2.5
    for _, row in ipairs(rows) do
      local text = row.cells[column] and words(row.cells[column].contents) or ""
      asked[column] = math.max(asked[column], math.min(#text, 200) ^ 0.5)
      for one in text:gmatch("%S+") do asked[column] = math.max(asked[column], #one / 1.6 + 2.5) end
    end
    sum = sum + asked[column]
  end
  return tab.colspecs:map(function(spec, column) return {spec[1], asked[column] / sum} end)
end

local function wide(tab) -- scrolls on a narrow screen
  tab.attr = {}
  tab.colspecs = word and widths(tab) or tab.colspecs:map(function(spec) return {spec[1], nil} end)
  return pandoc.Div(tab, {class = "wide"})
end

local function heading(head) -- its id is the chapter's name, its findings or a number
  local ids = pandoc.List()
  for id in words(head):gsub(" · .*", ""):gmatch("%f[%w]F%d%d%f[%W]") do ids:insert(id) end
  if head.level ~= 2 or #ids == 0 then ids = {head.level == 1 and chapter or chapter .. "-" .. headings} end
  head.identifier, headings = ids[1], headings + 1
  for i = 2, #ids do head = pandoc.Div(head, {id = ids[i]}) end
  return head
end

local function link(to) -- to a notebook leads to its chapter or finding, to another file nowhere
  local name = to.target:match("(%d%d_[%w_]+)%.ipynb")
  if name then to.target = "#" .. (words(to):match("^F%d%d$") or name) end
  return to.target:match("^http") and to or name and to or to.content
end

local function output(parts)
  local kinds, blocks, as_it_stands = {}, pandoc.Blocks{}, false
  for _, part in ipairs(parts) do
    kinds[part.format or part.t] = part
    local picture = part.t == "Para" and part.content[1]
    if picture and picture.src:match("%.png$") then
      local alt = picture.attributes.alt or "a figure without a description" -- matplotlib's own way of showing one
      return {pandoc.Figure(pandoc.Plain(pandoc.Image(alt, picture.src)))}
    end
  end
  if kinds.markdown then
    blocks = pandoc.read(kinds.markdown.text .. "\n", "commonmark+pipe_tables").blocks
  elseif kinds.html then -- pandas has escaped the cells of its tables
    blocks = pandoc.read(kinds.html.text, "html-native_divs-native_spans").blocks
    blocks = blocks:filter(function(block) return block.t == "Table" end)
  end
  local function look(part) as_it_stands = as_it_stands or not harmless[part.t] end
  blocks:walk{Inline = look, Block = look}
  if #blocks > 0 and not as_it_stands then return blocks:walk{Table = wide} end
  local plain = kinds.markdown or kinds.CodeBlock
  return plain and {pandoc.CodeBlock(plain.text)} or {}
end

function Pandoc(series)
  local blocks = pandoc.Blocks{}
  for _, cell in ipairs(series.blocks) do
    if cell.attributes.chapter ~= chapter then chapter, headings = cell.attributes.chapter, 0 end
    if cell.classes:includes("markdown") then
      local text, figure = cell.content:walk{Header = heading, Link = link, Table = wide}, blocks[#blocks]
      if figure and figure.t == "Figure" and words(text):match("^Figure") then
        figure.caption = {long = {pandoc.Plain(text:remove(1).content)}}
      end
      blocks:extend(text)
    else
      local code = cell.content:remove(1)
      local fold = "<details class='code'><summary>Code</summary>"
      if not word then blocks:extend{pandoc.RawBlock("html", fold), code, pandoc.RawBlock("html", "</details>")} end
      for _, shown in ipairs(cell.content) do blocks:extend(output(shown.content)) end
    end
  end
  return pandoc.Pandoc(blocks, series.meta)
end
