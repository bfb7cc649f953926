-- Only a question: nothing is written, and nothing has to reach the disk.
return answer({ s = fenced() and 'fenced' or 'ok' })
