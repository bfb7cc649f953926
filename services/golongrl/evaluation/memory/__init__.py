"""BFCL's memory agent: what it can remember (stores) and how it is talked to (loop). No network of its own."""
