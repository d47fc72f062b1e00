-- What wrk reports after a run, on one line that a program can read.
-- Arguments after `--` are paths to ask for in turn; without any, wrk's own fixed request is sent.

function init(args)
  if #args == 0 then return end
  local requests, at = {}, 0
  for i, path in ipairs(args) do requests[i] = wrk.format("GET", path) end
  request = function()
    at = at % #requests + 1
    return requests[at]
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'REPORT {"requests": %d, "micros": %d, "bytes": %d, "p50": %d, "p99": %d, "refused": %d, "broken": %d}\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
