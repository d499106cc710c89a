"""docs/rollout.md, of which the table of states and the policy are drawn from the code."""

from __future__ import annotations

from defectd.rollout.policy import Policy
from defectd.rollout.states import MAX_ATTEMPTS, MAX_TRANSITIONS, mermaid

_DOCUMENT = """# Rolling out a model

Generated from `daemon/defectd/rollout` by `make docs`; do not edit.

A technician publishes one signed message. The station fetches the bundle, verifies it, builds and tries its runtimes,
lets it judge beside the serving model, swaps between two units, watches, and commits; or it goes back by itself. Until
`committed` the model before is warm beside it, and a crash at any point leads back to it.

What to type is in [runbook.md](runbook.md#rolling-out-a-model); what a bundle is, in [models.md](models.md).

## States

```mermaid
{diagram}```

| state | what happens | what can end it |
|---|---|---|
| `received` | the command was signed by an `ops` key, is for this station, new and in time | |
| `downloading` | manifest and signatures first; then each file, resumed where it stopped, hashed as it comes | source away, wrong bytes, no space |
| `verifying` | every byte against the manifest, the `release` keys, this device, this recipe's classes | signature, unusable |
| `staged` | all is on disk; it waits for `approve`, the window, an idle line, trials that still run | |
| `building` | engines are built and tried on the golden pictures, in processes of low priority | golden, memory |
| `loading`, `warming`, `golden` | an engine starts beside the serving one, and answers the golden pictures again | candidate_failed |
| `shadow` | both models judge the same units; the serving one decides | disagreement, latency, errors |
| `switching` | between two units; the old engine stays warm | |
| `probation` | the candidate decides | errors, p99, drift of the verdicts, memory, heat; NaN, CUDA error, hang or death at once |
| `committed` | the only success | |
| `rolling_back` | the old engine judges again; this is being written down | |

Final: `committed`; `rejected` (not admitted: nothing was touched), `failed` (before the switch), `rolled_back` (after
it), `cancelled`. Every step is on disk before what it stands for is done. After a crash a rollout goes on where its state
allows, in at most {attempts} attempts and {transitions} steps; from the switch on a crash means `rolled_back`. A clean
stop in probation is no failure: the rollout goes on at `building` with the next start.

A unit on which the candidate fails in probation is judged by the old engine, which takes over at once. In a pause
(`allow_pause`, where memory does not hold two models) units are `error` with `engine_unavailable`, and `evt/fault`
`rollout` `line_paused` says from when to when.

## What is refused

Commands are JSON in a DSSE envelope (payload type `application/vnd.defectd.command+json`), at most 64 KiB, signed by
`ops` keys of the station's root.json; bundles by `release` keys: neither alone can change a model. `seq` must be higher
than any that the station has obeyed. A second message with the same id and bytes is answered again, with other bytes it
is a `conflict`. A release older than the newest that was ever committed needs `allow_downgrade`. A bundle that failed a
gate is in quarantine: make a new release. While a rollout is under way, a second one is `busy`.

`expires` is judged by the station's clock, or by the latest time that a signer has named, whichever is later: a clock in
1970 cannot bring an old command back, and a clock a year ahead makes commands `expired` until it is set right.

The answer is `last_command` of `model/reported`, with a code and a sentence.

## What the gates ask for

The command carries a policy. Its defaults are for a line of 240 units a minute.

| key | default | |
|---|---|---|
{policy}
The shadow compares verdicts unit by unit (McNemar's test, exact), so a change of the product cannot be mistaken for a
change of the model; where both fail a unit, their defect codes are compared. Probation compares the line with itself before the switch. A line that stands still freezes its clock.
Units that nobody judges are a failure.

## If the state is lost

If the database of models is damaged, it is put aside, the station serves its configured bundle, and takes no command
(`state_lost`): with the database it has lost which commands and releases are old. See to it, then delete
`models.lost` in the state directory.

A station that does not inspect for 30 s in three starts in a row within ten minutes goes back to the model before, after
three more to the configured one; `evt/fault` `model` `boot_loop` says so.

## Proving it

`DEFECTD_FAULT=STATE:KIND` makes a rollout fail in that state: exception, kill, worker, hang, enospc or eio; with
`DEFECTD_FAULT_ONCE=FILE` only once. `make prove-grid` does so for every pair.
"""


def rollout_document() -> str:
    """The page."""
    rows = []
    for name, field in Policy.model_fields.items():
        default = "none" if field.default is None else str(field.default).lower()
        rows.append(f"| `{name}` | {default} | {field.description} |\n")
    return _DOCUMENT.format(diagram=mermaid(), attempts=MAX_ATTEMPTS, transitions=MAX_TRANSITIONS, policy="".join(rows))
