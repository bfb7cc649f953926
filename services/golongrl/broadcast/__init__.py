"""Weights over the wire: the learner's sender, and what a worker needs to bring its engine to a broadcast version.

Every transfer has a process group of its own with two parties: the sender, and the ranks of one engine. So nothing has
to be re-formed when an engine fails or joins: its own transfer ends or begins, and no other engine notices. A few
transfers run at a time and the rest wait their turn, still generating, so each engine pauses only for its own.
"""
