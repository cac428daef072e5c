-- How Dovecot 2.4 asks Posthouse's authd whether a password is right, and where a mailbox is.
-- Copied here by `deploy/run` beside dovecot.conf, which names it and gives it authd's socket.
--
-- A question is a line of fields with tabs between them, escaped as Dovecot does it everywhere
-- (\1 and a letter; mailserver/lua_protocol.py), so that a password arrives byte for byte:
--
--   P  protocol  client's address  user  password       may this password log in?
--   U  user                                             where is this mailbox?
--
-- and so is the answer: O and fields of the form name=value; N: no; F: can't be checked now.
-- Nothing of a question is ever logged. Needs the package lua-socket.

local unix = require("socket.unix")

-- More than authd takes at most: whoever waits longer waits for a program that hangs.
local DEADLINE_S = 7

local path
local connection -- kept: every auth worker asks one question at a time

function script_init(settings)
  path = settings["socket"]
  return 0
end

local ESCAPES = { ["\0"] = "\0010", ["\1"] = "\0011", ["\t"] = "\1t", ["\r"] = "\1r", ["\n"] = "\1n" }
local MEANT = { ["0"] = "\0", ["1"] = "\1", ["t"] = "\t", ["r"] = "\r", ["n"] = "\n" }

local function escape(value)
  return (value:gsub("[\0\1\t\r\n]", ESCAPES))
end

local function unescape(value)
  return (value:gsub("\1(.)", MEANT))
end

local function connect()
  local made = unix.stream()
  made:settimeout(DEADLINE_S, "t")
  local ok, because = made:connect(path)
  if not ok then
    made:close()
    return nil, because
  end
  return made
end

-- The answer's line, or nil and why there is none.
local function ask(...)
  local fields = { ... }
  for number, field in ipairs(fields) do
    fields[number] = escape(field)
  end
  local line = table.concat(fields, "\t") .. "\n"
  local answer, because
  -- Twice: authd may have been restarted since the last question.
  for _ = 1, 2 do
    if connection == nil then
      connection, because = connect()
      if connection == nil then
        return nil, because
      end
    end
    local sent
    sent, because = connection:send(line)
    if sent then
      answer, because = connection:receive("*l")
    end
    if answer then
      return answer
    end
    connection:close()
    connection = nil
    if because ~= "closed" then
      break
    end
  end
  return nil, because
end

-- What the answer says: "O" and its fields, "N", or "F".
local function decide(request, ...)
  local answer, because = ask(...)
  if answer == nil then
    request:log_error("Posthouse's authd doesn't answer on " .. path .. ": " .. tostring(because))
    return "F"
  end
  local fields = {}
  for field in answer:gmatch("\t([^\t]*)") do
    local name, value = unescape(field):match("^([^=]*)=(.*)$")
    if name then
      fields[name] = value
    end
  end
  return answer:sub(1, 1), fields
end

function auth_password_verify(request, password)
  local verdict, fields = decide(request, "P", request.protocol, request.remote_ip, request.user, password)
  if verdict == "O" then
    return dovecot.auth.PASSDB_RESULT_OK, fields
  elseif verdict == "N" then
    return dovecot.auth.PASSDB_RESULT_PASSWORD_MISMATCH
  end
  return dovecot.auth.PASSDB_RESULT_INTERNAL_FAILURE
end

function auth_userdb_lookup(request)
  local verdict, fields = decide(request, "U", request.user)
  if verdict == "O" then
    return dovecot.auth.USERDB_RESULT_OK, fields
  elseif verdict == "N" then
    return dovecot.auth.USERDB_RESULT_USER_UNKNOWN
  end
  return dovecot.auth.USERDB_RESULT_INTERNAL_FAILURE
end
