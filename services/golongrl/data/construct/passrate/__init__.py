"""The stage `passrate`: how often models of the policy's size answer right, measured on the rollout path."""
