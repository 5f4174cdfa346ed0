"""Settings that must keep their defaults, each with why, or with what to do instead.

To make CIKD honour one of them, move its line to `honoured`, with the values it takes.
"""

from __future__ import annotations

#: RLlib documents them, CIKD cannot honour them.
UNSUPPORTED: dict[str, str] = {
    # .environment
    "observation_space": "spaces are the environment's own; change them with a wrapper",
    "action_space": "spaces are the environment's own; change them with a wrapper",
    "normalize_actions": "policies act in [-1, 1] and are always mapped to the action bounds",
    "_is_atari": "policies take vectors, not images; leave `is_atari` out",
    "disable_env_checking": "CIKD checks environments itself, RLlib's check would reseed them",
    "action_mask_key": "actions cannot be masked; leave it out",
    # .env_runners
    "create_local_env_runner": "the local env runner keeps the generators' state",
    "num_gpus_per_env_runner": "policies act on the CPU; the learner uses GPUs: "
    "set `num_gpus_per_learner`",
    "explore": "training explores with the policies' own noise, evaluation never does; to judge "
    "members call `evaluate()`",
    "batch_mode": "transitions are used as they come; leave it at 'truncate_episodes'",
    "episodes_to_numpy": "transitions are read from arrays; leave it True",
    "_env_to_module_connector": "wrap the environment with a `gymnasium.ObservationWrapper`",
    "_module_to_env_connector": "wrap the environment with a `gymnasium.ActionWrapper`",
    "add_default_connectors_to_env_to_module_pipeline": "policies need them; leave it True",
    "add_default_connectors_to_module_to_env_pipeline": "policies need them; leave it True",
    "use_env_runner_state_server": "weights go to the env runners directly; leave it False",
    "env_runner_state_server_max_concurrency": "there is no state server; leave it out",
    "_dont_auto_sync_env_runner_states": "env runners need the number of steps; leave it False",
    # .training
    "train_batch_size": "use `train_batch_size_per_learner`",
    "lr": "use `actor_lr`, `critic_lr` and `alpha_lr`",
    "num_epochs": "the number of gradient steps is set with `training_intensity`",
    "minibatch_size": "use `train_batch_size_per_learner`",
    "shuffle_batch_per_epoch": "minibatches are drawn from the buffer; leave it False",
    "grad_clip_by": "gradients are clipped by each network's norm; set only `grad_clip`",
    "target_network_update_freq": "target networks follow by `tau` after every gradient step",
    "twin_q": "SAC's twin critics are part of the algorithm",
    "_use_beta_distribution": "policies are squashed Gaussians, or softmaxes",
    "_deterministic_loss": "the loss samples actions from the policy",
    # .learners and .framework
    "num_aggregator_actors_per_learner": "transitions go straight to the learner",
    "max_requests_in_flight_per_aggregator_actor": "there are no aggregators; leave it out",
    "_learner_connector": "wrap the environment; the learner reads transitions, not episodes",
    "add_default_connectors_to_learner_pipeline": "the learner reads transitions, not episodes",
    "torch_compile_learner": "the learner batches and records its update itself; leave it False",
    "torch_compile_learner_what_to_compile": "the learner's update is not compiled; leave it out",
    "torch_compile_learner_dynamo_backend": "the learner's update is not compiled; leave it out",
    "torch_compile_learner_dynamo_mode": "the learner's update is not compiled; leave it out",
    "torch_compile_worker": "env runners do not compile policies; leave it False",
    "torch_compile_worker_dynamo_backend": "env runners do not compile policies; leave it out",
    "torch_compile_worker_dynamo_mode": "env runners do not compile policies; leave it out",
    "torch_ddp_kwargs": "learners average the gradients of all members themselves; leave it out",
    "torch_skip_nan_gradients": "a loss that is not finite ends training, so that nothing is "
    "lost; set `grad_clip`",
    "_torch_grad_scaler_class": "gradients are float32; leave it out",
    "_torch_lr_scheduler_classes": "give `actor_lr`, `critic_lr` and `alpha_lr` as schedules: "
    "[[0, 3.0e-4], [100000, 1.0e-4]]",
    "log_gradients": "gradients are not logged; losses are, below `learners/`",
    # .multi_agent
    "policies_to_train": "all members are trained",
    "count_steps_by": "all counters are environment steps",
    # .evaluation
    "evaluation_duration_unit": "evaluation counts episodes of every member",
    "evaluation_auto_duration_min_env_steps_per_sample": "set `evaluation_duration` to a number",
    "evaluation_auto_duration_max_env_steps_per_sample": "set `evaluation_duration` to a number",
    "evaluation_parallel_to_training": "members are evaluated between training iterations",
    "evaluation_unhealthy_workers_timeout_s": "what a failed env runner should have played, the "
    "local one plays; leave it out",
    "evaluation_error_after_n_consecutive_skips": "no evaluation is skipped; leave it out",
    "evaluation_force_reset_envs_before_iteration": "evaluation plays whole episodes",
    "custom_evaluation_function": "use `evaluation_duration` and the `on_evaluate_end` callback",
    # .checkpointing, .experimental
    "_use_msgpack_checkpoints": "checkpoints are pickled; leave it False",
    "_validate_config": "settings are always checked; leave it True",
    "_is_online": "members learn from what they do; leave it True",
    "enable_rl_module_and_learner": "CIKD needs RLlib's new API stack; leave it True",
    "enable_env_runner_and_connector_v2": "CIKD needs RLlib's new API stack; leave it True",
}

_OLD_STACK = "only RLlib's old API stack knows it"
_TENSORFLOW = "it belongs to TensorFlow, CIKD is written in PyTorch"
_OFFLINE = "CIKD learns from its environment, not from recorded data"
_RECORDING = "episodes are not recorded"
_OFFLINE_EVALUATION = "there is no offline evaluation"

#: By RLlib's own design they do nothing on its new API stack, or nothing in online training.
WITHOUT_MEANING: dict[str, str] = {
    **dict.fromkeys(
        (
            "eager_tracing",
            "eager_max_retraces",
            "tf_session_args",
            "local_tf_session_args",
            "enable_tf1_exec_eagerly",
            "_tf_policy_handles_more_than_one_loss",
        ),
        f"{_TENSORFLOW}; leave it out",
    ),
    "render_env": f"{_OLD_STACK}; see members with `rllib evaluate CHECKPOINT --video DIR`",
    "num_gpus": f"{_OLD_STACK}; use `num_gpus_per_learner`",
    "_fake_gpus": f"{_OLD_STACK}; leave it out",
    "extra_python_environs_for_driver": f"{_OLD_STACK}; set variables before Python starts",
    "extra_python_environs_for_worker": f"{_OLD_STACK}; use `ray.init(runtime_env=…)`",
    "exploration_config": f"{_OLD_STACK}; members explore with their policies' own noise",
    "model": f"{_OLD_STACK}; use `model_config`: {{fcnet_hiddens: …, fcnet_activation: …}}",
    "q_model_config": f"{_OLD_STACK}; use `model_config`: {{fcnet_hiddens: …, "
    "fcnet_activation: …}",
    "policy_model_config": f"{_OLD_STACK}; use `model_config`: {{fcnet_hiddens: …, "
    "fcnet_activation: …}",
    "optimization": f"{_OLD_STACK}; use `actor_lr`, `critic_lr` and `alpha_lr`",
    "optimizer": f"{_OLD_STACK}; use `actor_lr`, `critic_lr` and `alpha_lr`",
    "observation_fn": f"{_OLD_STACK}; wrap the environment with a `gymnasium.ObservationWrapper`",
    "compress_observations": f"{_OLD_STACK}; a smaller buffer: "
    "`replay_buffer_config`: {capacity: …}",
    "num_consecutive_env_runner_failures_tolerance": f"{_OLD_STACK}; use "
    "`max_num_env_runner_restarts`",
    "export_native_model_files": f"{_OLD_STACK}; read a member with `get_module`",
    "checkpoint_trainable_policies_only": f"{_OLD_STACK}; a checkpoint without buffer: "
    "`store_buffer_in_checkpoints`: False",
    "keep_per_episode_custom_metrics": f"{_OLD_STACK}; log values in callbacks with "
    "`metrics_logger.log_value`",
    **dict.fromkeys(
        (
            "remote_worker_envs",
            "remote_env_batch_wait_ms",
            "sample_collector",
            "preprocessor_pref",
            "update_worker_filter_stats",
            "use_worker_filter_stats",
            "sampler_perf_stats_ema_coef",
            "policy_map_capacity",
            "policy_states_are_swappable",
            "metrics_episode_collection_timeout_s",
            "fake_sampler",
            "replay_sequence_length",
            "_disable_preprocessor_api",
            "_disable_action_flattening",
            "_disable_initialize_loss_from_dummy_batch",
        ),
        f"{_OLD_STACK}; leave it out",
    ),
    **dict.fromkeys(
        (
            "input_",
            "offline_data_class",
            "input_read_method",
            "input_read_method_kwargs",
            "input_read_schema",
            "input_read_episodes",
            "input_read_sample_batches",
            "input_read_batch_size",
            "input_filesystem",
            "input_filesystem_kwargs",
            "input_compress_columns",
            "input_spaces_jsonable",
            "materialize_data",
            "materialize_mapped_data",
            "map_batches_kwargs",
            "iter_batches_kwargs",
            "ignore_final_observation",
            "prelearner_class",
            "prelearner_buffer_class",
            "prelearner_buffer_kwargs",
            "prelearner_module_synch_period",
            "prelearner_use_recorded_module_states",
            "dataset_num_iters_per_learner",
            "input_config",
            "actions_in_input_normalized",
            "postprocess_inputs",
            "shuffle_buffer_size",
            "offline_sampling",
            "off_policy_estimation_methods",
            "ope_split_batch_by_episode",
        ),
        f"{_OFFLINE}; leave it out",
    ),
    **dict.fromkeys(
        (
            "output",
            "output_config",
            "output_compress_columns",
            "output_max_file_size",
            "output_max_rows_per_file",
            "output_write_remaining_data",
            "output_write_method",
            "output_write_method_kwargs",
            "output_filesystem",
            "output_filesystem_kwargs",
            "output_write_episodes",
        ),
        f"{_RECORDING}; record them in a wrapper of the environment, or in a callback",
    ),
    **dict.fromkeys(
        (
            "offline_evaluation_interval",
            "num_offline_eval_runners",
            "offline_evaluation_type",
            "offline_eval_runner_class",
            "offline_loss_for_module_fn",
            "offline_evaluation_duration",
            "offline_evaluation_parallel_to_training",
            "offline_evaluation_timeout_s",
            "num_cpus_per_offline_eval_runner",
            "num_gpus_per_offline_eval_runner",
            "custom_resources_per_offline_eval_runner",
            "restart_failed_offline_eval_runners",
            "ignore_offline_eval_runner_failures",
            "max_num_offline_eval_runner_restarts",
            "offline_eval_runner_restore_timeout_s",
            "max_requests_in_flight_per_offline_eval_runner",
            "validate_offline_eval_runners_after_construction",
            "offline_eval_runner_health_probe_timeout_s",
            "offline_eval_rl_module_inference_only",
            "broadcast_offline_eval_runner_states",
            "offline_eval_batch_size_per_runner",
            "dataset_num_iters_per_eval_runner",
            "callbacks_on_evaluate_offline_start",
            "callbacks_on_evaluate_offline_end",
            "callbacks_on_offline_eval_runners_recreated",
        ),
        f"{_OFFLINE_EVALUATION}; use `evaluation_interval` and `evaluation_duration`",
    ),
}

#: Names of other programs, and of RLlib's former versions, and what stands for them here.
OTHER_NAMES: dict[str, str] = {
    "buffer_size": "replay_buffer_config: {capacity: …}",
    "learning_starts": "num_steps_sampled_before_learning_starts",
    "timesteps_per_iteration": "min_sample_timesteps_per_iteration",
    "min_sample_timesteps_per_reporting": "min_sample_timesteps_per_iteration",
    "min_train_timesteps_per_reporting": "min_train_timesteps_per_iteration",
    "min_time_s_per_reporting": "min_time_s_per_iteration",
    "min_iter_time_s": "min_time_s_per_iteration",
    "batch_size": "train_batch_size_per_learner",
    "fcnet_hiddens": "model_config: {fcnet_hiddens: …}",
    "fcnet_activation": "model_config: {fcnet_activation: …}",
    "critic_layer_norm": "model_config: {critic_layer_norm: true}",
    "batch_norm": "model_config: {batch_norm: true}",
    "model_config_dict": "model_config",
    "multiagent": "ensemble_size",
    "optimization_config": "actor_lr, critic_lr and alpha_lr",
    "_enable_new_api_stack": "enable_rl_module_and_learner",
    "_enable_rl_module_api": "enable_rl_module_and_learner",
    "num_rollout_workers": "num_env_runners",
    "evaluation_num_workers": "evaluation_num_env_runners",
    "evaluation_num_episodes": "evaluation_duration",
    "num_envs_per_worker": "num_envs_per_env_runner",
    "num_cpus_per_worker": "num_cpus_per_env_runner",
    "num_gpus_per_worker": "num_gpus_per_learner",
    "custom_resources_per_worker": "custom_resources_per_env_runner",
    "num_learner_workers": "num_learners",
    "num_cpus_per_learner_worker": "num_cpus_per_learner",
    "num_gpus_per_learner_worker": "num_gpus_per_learner",
    "num_cpus_for_local_worker": "num_cpus_for_main_process",
    "ignore_worker_failures": "ignore_env_runner_failures",
    "recreate_failed_workers": "restart_failed_env_runners",
    "recreate_failed_env_runners": "restart_failed_env_runners",
    "max_num_worker_restarts": "max_num_env_runner_restarts",
    "delay_between_worker_restarts_s": "delay_between_env_runner_restarts_s",
    "num_consecutive_worker_failures_tolerance": "max_num_env_runner_restarts",
    "worker_health_probe_timeout_s": "env_runner_health_probe_timeout_s",
    "worker_restore_timeout_s": "env_runner_restore_timeout_s",
    "validate_workers_after_construction": "validate_env_runners_after_construction",
    "worker_cls": "env_runner_cls",
    "metrics_smoothing_episodes": "metrics_num_episodes_for_smoothing",
    "num_sgd_iter": "training_intensity",
    "sgd_minibatch_size": "train_batch_size_per_learner",
    "max_requests_in_flight_per_sampler_worker": "max_requests_in_flight_per_env_runner",
    "replay_batch_size": "train_batch_size_per_learner",
}

_GENERATED = "the ensemble's policies are generated; set `ensemble_size`, and per-member "
_GENERATED += "differences with `rl_module(algorithm_config_overrides_per_module=…)`"

#: Fields that RLlib or CIKD keep in a config for themselves, with what to set instead.
INTERNAL: dict[str, str] = {
    "algo_class": "it is the algorithm's own; make a subclass of `CIKDConfig`",
    "in_evaluation": "RLlib sets it in its copy for evaluation; use `evaluation_config`",
    "policies": _GENERATED,
    "policy_mapping_fn": "who acts follows from `policy_selection`",
    "simple_optimizer": "RLlib sets it itself; leave it out",
    "_is_frozen": "call `config.copy(copy_frozen=False)` to change a frozen config",
    "_per_module_overrides": "use `algorithm_config_overrides_per_module`",
    "_prior_exploration_config": f"{_OLD_STACK}; leave it out",
}
