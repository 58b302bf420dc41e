"""What a project's plan makes of its counted jobs, on both databases."""

from __future__ import annotations

from generated.baxcloud.v1 import project_pb2 as pb
from server.clock import SystemClock
from server.context import CallContext, Caller, CallerKind
from server.domain.project import Usage
from server.ids import ProjectId
from server.ports.unit_of_work import Database
from server.services.projects import Projects

ADMIN = CallContext("test", "test", "request", Caller(CallerKind.ADMIN, None), {})
PLAN = pb.Plan(
    included_categorization_jobs=1,
    included_moderation_jobs=1,
    categorization_overage_cents=3,
    moderation_overage_cents=0.5,
)


async def usage_after(database: Database, *counted: Usage, plan: pb.Plan = PLAN) -> pb.Usage:
    """Each of `counted` is added as the end of a job adds it."""
    projects = Projects(database, SystemClock(), on_key_revoked=lambda _: None)
    project = await projects.create_project(pb.CreateProjectRequest(name="Films", plan=plan), ADMIN)
    for each in counted:
        async with database.begin() as tx:
            await tx.projects.add_usage(ProjectId(project.id), each)
            await tx.commit()
    return await projects.get_usage(pb.GetUsageRequest(project_id=project.id), ADMIN)


async def test_jobs_beyond_the_included_ones_are_counted_and_cost(database: Database) -> None:
    """GN-16: of two jobs one is included and one is overage; counting them refuses none.

    That both jobs run is for the tests of the vision engine.
    """
    shown = await usage_after(database, Usage(categorization_jobs=1), Usage(categorization_jobs=1))
    assert shown.categorization_jobs == 2
    assert (shown.categorization_included, shown.categorization_overage) == (1, 1)
    assert (shown.moderation_jobs, shown.moderation_included, shown.moderation_overage) == (0, 0, 0)
    assert shown.ai_overage_cents == 3


async def test_each_kind_has_its_own_share_and_rate(database: Database) -> None:
    """GN-15, GN-16: what is left of one kind does not pay for the other."""
    shown = await usage_after(database, Usage(categorization_jobs=1), Usage(moderation_jobs=4))
    assert (shown.categorization_included, shown.categorization_overage) == (1, 0)
    assert (shown.moderation_included, shown.moderation_overage) == (1, 3)
    assert shown.ai_overage_cents == 1.5


async def test_without_included_jobs_every_one_is_overage(database: Database) -> None:
    """GN-16: at the default rate of one cent."""
    shown = await usage_after(database, Usage(categorization_jobs=2, moderation_jobs=1), plan=pb.Plan())
    assert (shown.categorization_included, shown.moderation_included) == (0, 0)
    assert (shown.categorization_overage, shown.moderation_overage, shown.ai_overage_cents) == (2, 1, 3)
