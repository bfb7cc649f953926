"""`golongrl data construct`: long-context training data from a folder of documents, in resumable stages.

The stages are `sources -> select -> generate -> verify -> passrate -> format -> decontaminate -> diagnose`, and
`convert` for the rows of public sets. Each reads parquet and writes parquet (`schemas`), and none loses a row in
silence: a row that is left out stays in its table with the reason. `stage` is the protocol of a stage, `table` how its
rows lie on disk, `run` the order of the stages, `models` the YAML file that says what is made.
"""
