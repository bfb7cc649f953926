-- A question, but one whose answer must come from the primary: a server that was replaced cannot confirm a write.
touch()
return answer({ s = fenced() and 'fenced' or 'ok' })
