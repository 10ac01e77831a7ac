"""What a user could pick instead of hubrank's estimators: pure functions, to be measured beside them.

:mod:`embeddings` compare one vector a task, :mod:`features` score the features that a source's model gives the target's rows,
:mod:`priors` never look at the target. Which arrays each needs, and so what it costs, its parameters say.
"""
