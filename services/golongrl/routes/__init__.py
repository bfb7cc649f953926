"""Routes: which experts of a mixture of experts each token of a group was sent to, from the engine to the learner.

A learner that routes tokens again sends some of them to other experts than the engine did, because the two compute in
different kernels: their log-probs then differ by far more than rounding. With `learner.routing_replay` it takes the
engine's experts instead. Routes are larger than all else of a group, so they travel as a file of the weight store
(`golongrl.routes.store`), and the queue carries its name and checksum (`golongrl.routes.reference`).

`model` and `reference` need no numpy: the recipe and the queue use them in images without it.
"""
