"""The plan of a run on several devices, which share every batch."""

from segpipe.plan import Plan


def for_devices(plan: Plan, devices: int, given: int | None) -> Plan:
    """Return the plan with a batch that the devices can share, unless the batch is given.

    The batch is that of one device, raised to a multiple of their number, so that what a run
    learns depends on their number as little as can be.

    Args:
        plan: the plan for one device.
        devices: number of devices.
        given: the batch that the options ask for.
    """
    batch = -(-plan.batch // devices) * devices
    if given is not None or batch == plan.batch:
        return plan
    reasons = []
    for reason in plan.reasons:
        before = f"batch {plan.batch}: "
        if reason.startswith(before):
            why = reason.removeprefix(before)
            reason = f"batch {batch}: {why}, raised to a multiple of {devices} devices"
        reasons.append(reason)
    return plan.model_copy(update={"batch": batch, "reasons": reasons})
