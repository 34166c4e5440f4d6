-- The payments of a step for wrk, which runs with one thread. PAYFLOW_BENCH_DIR holds: heads and templates (one a line,
-- rendered, CR and LF escaped), settings; and gets: answers, one line each ("S number", "P number" or "E label"), and
-- summary. wrk does not tell a response's request, so acknowledged payments are told by the transaction id in the answer.
local dir = os.getenv("PAYFLOW_BENCH_DIR")
local heads, templates = {}, {}
local settings = {}
local answers
counter = 0

local function unescape(text)
   return (text:gsub("\\r", "\r"):gsub("\\n", "\n"))
end

function init()
   for line in io.lines(dir .. "/settings") do
      local name, value = line:match("^(%S+) (.*)$")
      settings[name] = value
   end
   for line in io.lines(dir .. "/heads") do heads[#heads + 1] = unescape(line) end
   for line in io.lines(dir .. "/templates") do
      local head, between, after = line:match("^(%d+)\t(.-)\t(.*)$")
      templates[#templates + 1] = { heads[tonumber(head) + 1], unescape(between), after }
   end
   -- By line: wrk ends its threads without closing their files.
   answers = io.open(dir .. "/answers", "w")
   answers:setvbuf("line")
   settings.first = tonumber(settings.first)
   settings.id = "b" .. settings.run_id .. "-%0" .. settings.digits .. "d"
end

function request()
   local number = settings.first + counter
   counter = counter + 1
   local template = templates[number % #templates + 1]
   local name = string.format(settings.id, number)
   return template[1] .. name .. template[2] .. name .. template[3]
end

function response(status, headers, body)
   if (status == 200 and body:find('"status":"SUCCESS"', 1, true)) or status == 202 then
      local number = body:match('"transaction_id":"b[^"]-%-(%d+)"')
      answers:write(status == 202 and "P " or "S ", number or "-1", "\n")
   else
      answers:write("E ", status, " ", body:match('"error":"([A-Z_]+)"') or "", "\n")
   end
end

local thread
function setup(started) thread = started end

function done(summary, latency)
   local file = io.open(dir .. "/summary", "w")
   file:write(string.format("sent %d\n", thread:get("counter")))
   file:write(string.format("duration_us %d\n", summary.duration))
   for _, percent in ipairs({ 50, 95, 99 }) do
      file:write(string.format("p%d_us %d\n", percent, latency:percentile(percent)))
   end
   file:write(string.format("max_us %d\n", latency.max))
   for _, kind in ipairs({ "connect", "read", "write", "timeout" }) do
      file:write(string.format("%s_errors %d\n", kind, summary.errors[kind]))
   end
   file:close()
end
