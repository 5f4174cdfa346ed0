"""Keys of training results that more than one room reads."""

#: Environment steps so far, in results and in their evaluations.
STEPS = "num_env_steps_sampled_lifetime"
#: Gradient steps of each member so far, in `ensemble`.
UPDATES = "num_updates_lifetime"

#: What an evaluation tells of an ensemble beside its members; "elected" has the highest R_k.
SUMMARIES = ("best", "worst", "mean", "elected")
