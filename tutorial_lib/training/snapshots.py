"""Snapshots: everything a run needs to go on as if it had never stopped, in one safetensors file without pickles.

Tensors: `method.*`, `average.<name>.*`, `optimizer.<name>.<parameter index>.<key>`, `rng.cpu` and `rng.cuda` (a row for
each process). What is not a tensor stands as JSON in the file's header: the two can never be from different steps.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tutorial_lib.training.checkpoints import CheckpointError, config_dict, load_tensors, read_tensors, write_tensors

if TYPE_CHECKING:
    from accelerate import Accelerator

    from tutorial_lib.training.loop import RunSettings


def save_snapshot(
    path: Path,
    method: nn.Module,
    averages: dict[str, nn.Module],
    run: RunSettings,
    accelerator: Accelerator,
    **state: Any,
) -> None:
    """Write a snapshot; `state` is what else must survive (step, seconds, rates). All processes must call this.

    Raises FloatingPointError, and leaves the file that is there, if a weight is no longer finite.
    """
    rng = _gather_rng(accelerator)
    if not accelerator.is_main_process:
        return
    tensors: dict[str, Tensor] = {f"method.{key}": tensor for key, tensor in method.state_dict().items()}
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise FloatingPointError(f"{key} is not finite after step {state['step']}; last good snapshot: {path}")
    for name, average in averages.items():
        tensors |= {f"average.{name}.{key}": tensor for key, tensor in average.state_dict().items()}

    optimizers: dict[str, dict] = {}
    for name, optimizer in method.optimizers.items():
        saved = optimizer.state_dict()
        values = {f"{index}.{key}": value for index, of in saved["state"].items() for key, value in of.items()}
        tensors |= {f"optimizer.{name}.{key}": value for key, value in values.items() if isinstance(value, Tensor)}
        plain = {key: value for key, value in values.items() if not isinstance(value, Tensor)}
        optimizers[name] = {"param_groups": saved["param_groups"], "plain": plain}

    header = {
        "method": method.name,
        "config": config_dict(method),
        "run": dataclasses.asdict(run),
        "processes": accelerator.num_processes,
        "optimizers": optimizers,
        **state,
    }
    write_tensors({**tensors, **rng}, path, header={"snapshot": json.dumps(header)})


def read_snapshot(
    path: Path, method: nn.Module, run: RunSettings, data: dict[str, Any], start: dict[str, Any] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of a snapshot; `data` describes the data set, `start` the checkpoint that the run started from, if it
    is known.

    Raises CheckpointError if it is damaged, of another method, config, run, data set or start, or of a later step than the
    run's last.
    """
    tensors, header = read_tensors(path)
    try:
        state = json.loads(header["snapshot"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: no snapshot in its header") from error
    # `steps` may differ: a finished run can be made longer.
    now = {"method": method.name, **_prefixed("config", config_dict(method))}
    now |= _prefixed("run", {key: getattr(run, key) for key in ("seed", "batch_size", "ema_decay")})
    then = {"method": state["method"], **_prefixed("config", defaults(method.config) | state["config"])}
    then |= _prefixed("run", state["run"])
    described = state.get("data", {})  # older versions described less: what is not there is not known to be another
    now |= _prefixed("data", {key: data.get(key) for key in described})
    then |= _prefixed("data", described)
    for key, value in now.items():
        if then.get(key) != value:
            raise CheckpointError(f"{path} was made with {key} = {then.get(key)!r}, this run has {value!r}")
    if start is not None and "start" in state:  # older versions did not write it down
        ours, theirs = (of.get("sha256") if isinstance(of, dict) else of for of in (start, state["start"]))
        if ours != theirs:
            started = f"the checkpoint of SHA-256 {theirs}" if theirs else "fresh weights"
            problem = f"{path} is of a run that started from {started}, this one starts from {ours}"
            raise CheckpointError(f"{problem}: choose another folder, or leave the start away to go on from the snapshot")
    if state["step"] > run.steps:
        raise CheckpointError(f"{path} is of step {state['step']}, this run ends at step {run.steps}")
    return tensors, state


def defaults(config: Any) -> dict[str, Any]:
    """What a config's fields are if nobody says otherwise: a snapshot of an older version does not know the newer ones."""
    known = {field.name: field.default for field in dataclasses.fields(config) if field.default is not dataclasses.MISSING}
    return json.loads(json.dumps(known, default=dataclasses.asdict))


def restore(path: Path, tensors: dict[str, Tensor], state: dict, method: nn.Module, averages: dict[str, nn.Module]) -> None:
    """Put a snapshot's weights, averages and optimiser states back (the random state comes last: `restore_rng`)."""
    load_tensors(method, _below("method.", tensors), path)
    for name, average in averages.items():
        load_tensors(average, _below(f"average.{name}.", tensors), path)
    for name, optimizer in method.optimizers.items():
        saved = state["optimizers"][name]
        values = {**saved["plain"], **_below(f"optimizer.{name}.", tensors)}
        by_parameter: dict[int, dict[str, Any]] = {}
        for key, value in values.items():
            index, entry = key.split(".", 1)
            by_parameter.setdefault(int(index), {})[entry] = value
        optimizer.load_state_dict({"state": by_parameter, "param_groups": saved["param_groups"]})
    lay_out_states(method)


def lay_out_states(method: nn.Module) -> None:
    """Put what optimisers remember into their parameters' memory format, which a fused one takes for granted."""
    for optimizer in method.optimizers.values():
        for parameter, entries in optimizer.state.items():
            for key, value in entries.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                    entries[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def restore_rng(tensors: dict[str, Tensor], accelerator: Accelerator) -> None:
    """Put this process's random state back."""
    # A copy of the row: set_rng_state reads a tensor's storage from its beginning, whatever the view.
    mine = {key: tensor[accelerator.process_index].clone() for key, tensor in tensors.items() if key.startswith("rng.")}
    torch.set_rng_state(mine["rng.cpu"])
    if accelerator.device.type == "cuda" and "rng.cuda" in mine:
        torch.cuda.set_rng_state(mine["rng.cuda"], accelerator.device)
    if accelerator.device.type == "mps" and "rng.mps" in mine:
        torch.mps.set_rng_state(mine["rng.mps"])


def _gather_rng(accelerator: Accelerator) -> dict[str, Tensor]:
    states = {"rng.cpu": torch.get_rng_state()}
    if accelerator.device.type == "cuda":
        states["rng.cuda"] = torch.cuda.get_rng_state(accelerator.device)
    if accelerator.device.type == "mps":
        states["rng.mps"] = torch.mps.get_rng_state()
    return {key: accelerator.gather(state[None].to(accelerator.device)) for key, state in states.items()}


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _prefixed(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{key}": value for key, value in values.items()}
