"""The training ranks: verl engines as Ray actors, and the tensors they compute on."""
