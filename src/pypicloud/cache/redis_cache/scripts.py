"""What Redis does at once or not at all: scripts, which it runs one after the other.

Each is given every key that it touches, and in a cluster all of these are in one slot. A key that holds
another kind of value than it should is made room of. Each can be run a second time without harm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

_MAKE_ROOM: Final = b"""
local function as_set(key)
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'set' and kind ~= 'none' then redis.call('DEL', key) end
  return key
end
"""

_STEP: Final = (
    _MAKE_ROOM
    + b"""
local revision, members, summary = redis.pcall('GET', KEYS[1]), as_set(KEYS[2]), KEYS[3]
if type(revision) ~= 'string' then revision = '' end
if revision == ARGV[2] then
  -- It was made before, and the answer was lost.
  return 1
end
if revision ~= ARGV[1] then return -1 end
local at, file = 7, 4
local function next_argument()
  at = at + 1
  return ARGV[at - 1]
end
local function next_file()
  file = file + 1
  return KEYS[file - 1]
end
local function put(key)
  local count = tonumber(next_argument())
  redis.call('DEL', key)
  for first = at, at + count - 1, 1000 do
    redis.call('HSET', key, unpack(ARGV, first, math.min(first + 999, at + count - 1)))
  end
  at = at + count
  return count
end
local before, saved = redis.call('SCARD', members), tonumber(ARGV[4])
-- Redis without memory left refuses the first write, or none at all. What frees memory need not be refused.
if saved > 0 then redis.call('SET', KEYS[1], ARGV[2]) end
local has_digest = put(summary) > 0
for _ = 1, saved do
  redis.call('SADD', members, next_argument())
  put(next_file())
end
for _ = 1, tonumber(ARGV[5]) do
  local key = next_file()
  if redis.pcall('HGET', key, 'name') == ARGV[3] then redis.call('DEL', key) end
  redis.call('SREM', members, next_argument())
end
for _ = 1, tonumber(ARGV[6]) do redis.call('SREM', members, next_argument()) end
while ARGV[at] do redis.call('SADD', members, next_argument()) end
local after = redis.call('SCARD', members)
if has_digest then
  if after > 0 then redis.call('HSET', summary, 'files', after) else redis.call('DEL', summary) end
end
if saved == 0 then redis.call('SET', KEYS[1], ARGV[2]) end
"""
)

#: One project's step, and its place in the list of projects. KEYS: the project's revision, members and
#: summary, the files saved, the files dropped, the list, its revision. ARGV: the revision before (empty if none)
#: and after; the name; how many files are saved, dropped, and leave; the summary; of each file saved its name
#: and facts; the names of those dropped, of those that leave, and of those that join. Facts and summary are
#: fields and values, with their number before them. Answers -1 if the revision is another one.
STEP: Final = (
    _STEP
    + b"""
local list = as_set(KEYS[#KEYS - 1])
if (after > 0) ~= (redis.call('SISMEMBER', list, ARGV[3]) == 1) then
  redis.call(after > 0 and 'SADD' or 'SREM', list, ARGV[3])
  redis.call('SET', KEYS[#KEYS], ARGV[2])
end
return 0
"""
)

#: The same, where the list is elsewhere. Answers 1 if the project may have come or gone, else 0.
STEP_ALONE: Final = (
    _STEP
    + b"""
return (after > 0) == (before > 0) and 0 or 1
"""
)

#: The names and rows of all files of a project, as they are at one moment. KEYS: the members. ARGV: what the
#: keys of the files begin with.
FILES: Final = b"""
local rows, members = {}, redis.pcall('SMEMBERS', KEYS[1])
if members.err then return rows end
for _, filename in ipairs(members) do
  local row = redis.pcall('HGETALL', ARGV[1] .. filename)
  if not row.err then
    rows[#rows + 1] = filename
    rows[#rows + 1] = row
  end
end
return rows
"""

#: Put a project into the list, or take it out. KEYS: the list, its revision. ARGV: SADD or SREM, name, new revision.
LIST: Final = (
    _MAKE_ROOM
    + b"""
if redis.call(ARGV[1], as_set(KEYS[1]), ARGV[2]) == 1 then redis.call('SET', KEYS[2], ARGV[3]) end
"""
)

#: Give a key a text if it has none. KEYS: the key. ARGV: the text. Answers whether that is its text now.
SET_IF_NONE: Final = b"""
local text = redis.pcall('GET', KEYS[1])
if type(text) == 'string' then return text == ARGV[1] and 1 or 0 end
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""

#: Delete a key that has a certain text. KEYS: the key. ARGV: the text.
DELETE_IF: Final = b"""
if redis.pcall('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""

#: Delete a hash that nobody has changed since it was read. KEYS: the hash. ARGV: its fields and values.
DISCARD: Final = b"""
local row = redis.pcall('HGETALL', KEYS[1])
if not row.err then
  if #row ~= #ARGV then return end
  for place, text in ipairs(row) do
    if text ~= ARGV[place] then return end
  end
end
redis.call('DEL', KEYS[1])
"""

#: Take a lease, or make it last. KEYS: the lease. ARGV: who asks, milliseconds. Answers whether it is theirs.
CLAIM: Final = b"""
local holder = redis.pcall('GET', KEYS[1])
if type(holder) == 'string' and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""


#: A command's name and arguments; the first key decides to which node of a cluster it goes.
Command: TypeAlias = tuple[Any, ...]

#: The texts of the scripts, by what Redis calls them.
TEXTS: Final = {
    hashlib.sha1(script, usedforsecurity=False).hexdigest().encode(): script
    for script in (STEP, STEP_ALONE, FILES, LIST, SET_IF_NONE, DELETE_IF, DISCARD, CLAIM)
}
_DIGESTS: Final = {script: digest for digest, script in TEXTS.items()}

_SCRIPTED: Final = frozenset({b"EVALSHA", b"EVAL"})


def run(script: bytes, keys: Sequence[bytes], *arguments: bytes | int) -> Command:
    """The command that runs a script."""
    return (b"EVALSHA", _DIGESTS[script], len(keys), *keys, *arguments)


def in_full(command: Command) -> Command:
    """The command that runs a script which Redis does not know yet."""
    return (b"EVAL", TEXTS[command[1]], *command[2:])


def key_of(command: Command) -> bytes:
    """The first key of a command."""
    key: bytes = command[3 if command[0] in _SCRIPTED else 1]
    return key
