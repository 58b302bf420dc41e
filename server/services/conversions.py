"""VideoConversionService: creates, lists, watches and cancels conversion jobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

from google.protobuf.empty_pb2 import Empty

from generated.baxcloud.v1 import common_pb2
from generated.baxcloud.v1 import video_conversion_pb2 as pb
from server.clock import Clock
from server.context import CallContext
from server.conversion.leftovers import remove_leftovers
from server.domain.conversion import DEFAULT_FFMPEG_PRESET, DEFAULT_HLS_TIME, RECORDING_SCHEME, ConversionSpec
from server.domain.job import CONVERSION_KIND, Job, JobStatus, NewJob
from server.domain.ladder import DEFAULT_FORMATS
from server.domain.objects import effective_s3
from server.domain.project import S3Config
from server.egress.recording_files import RecordingFiles
from server.errors import Code, ServiceError, failed_precondition, invalid, not_found, unavailable
from server.ids import JobId, ProjectId, derived_job_id, new_job_id
from server.ports.fetch import SourceFetcher
from server.ports.jobs import JobEngine
from server.ports.spool import UploadSpool
from server.ports.storage import ObjectStorage, StorageError, StorageTarget
from server.ports.unit_of_work import IDEMPOTENCY_KEPT, Database
from server.services.conversion_messages import job_to_message
from server.services.messages import from_value, page_of, s3_from_message

# How often a watched job is read again; its worker writes progress about once a second.
WATCH_INTERVAL_SEC = 0.5
# How long a cancelling caller waits for the removal of what an earlier attempt wrote.
REMOVAL_TIMEOUT_SEC = 10.0

_logger = logging.getLogger(__name__)

_Options = pb.CreateConversionJobRequest | pb.UploadOptions | pb.ConvertRecordingRequest


@dataclass(frozen=True, slots=True)
class ConversionPolicy:
    """What the operator decides: the default storage, the fallback, whose rooms and keys carry no folder, limits."""

    operator_s3: S3Config | None
    local_fallback: bool
    bootstrap_project_id: ProjectId
    max_upload_bytes: int


class VideoConversions:
    """Implements the conversion part of `baxcloud.v1.VideoConversionService`."""

    def __init__(
        self,
        database: Database,
        engine: JobEngine,
        storage: ObjectStorage,
        fetcher: SourceFetcher,
        spool: UploadSpool,
        recordings: RecordingFiles,
        policy: ConversionPolicy,
        clock: Clock,
    ) -> None:
        self._database = database
        self._clock = clock
        self._engine = engine
        self._storage = storage
        self._fetcher = fetcher
        self._spool = spool
        self._recordings = recordings
        self._policy = policy

    async def create_conversion_job(
        self, request: pb.CreateConversionJobRequest, ctx: CallContext
    ) -> pb.ConversionJob:
        self._fetcher.check_url(request.input_url, field="inputUrl")
        job_id = await self._job_id(ctx)
        spec = await self._spec(request, request.input_url, job_id, ctx.project_id)
        return await self._submit(spec, request, job_id, ctx.project_id)

    async def upload_video(
        self, requests: AsyncIterator[pb.UploadVideoRequest], ctx: CallContext
    ) -> pb.ConversionJob:
        job_id = await self._job_id(ctx)
        options: pb.UploadOptions | None = None
        async with self._spool.receive(job_id) as file:
            async for part in requests:
                if part.WhichOneof("part") == "options":
                    if options is not None:
                        raise invalid("options", "must be sent once")
                    options = part.options
                    await self._spec(options, "upload://", job_id, ctx.project_id)
                    continue
                # Once: each look at a bytes field copies it.
                chunk = part.chunk
                if file.size + len(chunk) > self._policy.max_upload_bytes:
                    raise too_large(self._policy.max_upload_bytes)
                try:
                    await file.write(chunk)
                except OSError:
                    raise unavailable(
                        "the server's disk is too full for this upload", retry_after_sec=60
                    ) from None
            if file.size == 0:
                raise invalid("video", "is required")
            options = options or pb.UploadOptions()
            name = options.filename or "video"
            spec = await self._spec(options, f"upload://{name}", job_id, ctx.project_id)
            await file.keep()
        try:
            return await self._submit(spec, options, job_id, ctx.project_id)
        except BaseException:
            await self._spool.remove(job_id)
            raise

    async def convert_recording(
        self, request: pb.ConvertRecordingRequest, ctx: CallContext
    ) -> pb.ConversionJob:
        """Of a finished recording of the project, which the worker reads from storage (design section 13)."""
        await self._recordings.key(ctx.project_id, request.recording_id)
        job_id = await self._job_id(ctx)
        source = RECORDING_SCHEME + request.recording_id
        spec = await self._spec(request, source, job_id, ctx.project_id)
        return await self._submit(spec, request, job_id, ctx.project_id)

    async def list_conversion_jobs(
        self, request: pb.ListConversionJobsRequest, ctx: CallContext
    ) -> pb.ListConversionJobsResponse:
        page, size = page_of(request)
        status = (
            JobStatus(pb.ConversionJob.Status.Name(request.status)) if request.HasField("status") else None
        )
        async with self._database.read() as tx:
            found = await tx.jobs.list(
                ctx.project_id, kind=CONVERSION_KIND, status=status, page=page, size=size
            )
        return pb.ListConversionJobsResponse(
            items=map(job_to_message, found.items), total=found.total, page=page, page_size=size
        )

    async def get_conversion_job(
        self, request: pb.GetConversionJobRequest, ctx: CallContext
    ) -> pb.ConversionJob:
        return job_to_message(await self._get(request.job_id, ctx))

    async def watch_conversion_job(
        self, request: pb.WatchConversionJobRequest, ctx: CallContext
    ) -> AsyncIterator[pb.ConversionJob]:
        shown: pb.ConversionJob | None = None
        while True:
            job = await self._get(request.job_id, ctx)
            message = job_to_message(job)
            if message != shown:
                yield message
                shown = message
            if job.status.is_final:
                return
            await asyncio.sleep(WATCH_INTERVAL_SEC)

    async def cancel_conversion_job(self, request: pb.CancelConversionJobRequest, ctx: CallContext) -> Empty:
        job_id = JobId(request.job_id)
        async with self._database.begin() as tx:
            job = await tx.jobs.get(ctx.project_id, job_id)
            if job is None or job.kind != CONVERSION_KIND:
                raise not_found("conversion job", request.job_id)
            if not await self._engine.cancel(tx, ctx.project_id, job_id):
                raise failed_precondition(
                    f"only PENDING jobs can be cancelled; this one is {job.status.value}",
                    reason="JOB_NOT_CANCELLABLE",
                )
            await tx.commit()
        await self._spool.remove(job_id)
        # If it was handed over or waited for another attempt, what the earlier one wrote goes too.
        await self._remove_objects(job)
        return Empty()

    async def _remove_objects(self, job: Job) -> None:
        # The job is cancelled whatever becomes of this; a storage that is away must not turn that into an error.
        try:
            async with asyncio.timeout(REMOVAL_TIMEOUT_SEC):
                await remove_leftovers(job, self._database, self._storage)
        except TimeoutError:
            _logger.warning("job %s: its storage took too long to remove partial objects", job.id)

    async def _job_id(self, ctx: CallContext) -> JobId:
        """A fresh id; under an `Idempotency-Key` the same one for a day, so that a call repeated after a crash of ours
        finds the job that the first one made, even if its answer was never stored.
        """
        if ctx.idempotency_key is None:
            return new_job_id()
        derived = derived_job_id(ctx.project_id, ctx.method, ctx.idempotency_key)
        async with self._database.read() as tx:
            earlier = await tx.jobs.get(ctx.project_id, derived)
        expired = earlier is not None and earlier.created_at <= self._clock.now() - IDEMPOTENCY_KEPT
        return new_job_id() if expired else derived

    async def _get(self, job_id: str, ctx: CallContext) -> Job:
        async with self._database.read() as tx:
            job = await tx.jobs.get(ctx.project_id, JobId(job_id))
        if job is None or job.kind != CONVERSION_KIND:
            raise not_found("conversion job", job_id)
        return job

    async def _spec(
        self, options: _Options, input_url: str, job_id: JobId, project_id: ProjectId
    ) -> ConversionSpec:
        """The validated wish; raises what the caller must mend before anything is stored."""
        target = await self._target(
            options.s3_config if options.HasField("s3_config") else None, job_id, project_id
        )
        return ConversionSpec(
            input_url=input_url,
            output_formats=tuple(options.output_formats) or DEFAULT_FORMATS,
            ffmpeg_preset=options.ffmpeg_preset
            if options.HasField("ffmpeg_preset")
            else DEFAULT_FFMPEG_PRESET,
            hls_time=options.hls_time if options.HasField("hls_time") else DEFAULT_HLS_TIME,
            categorize=options.categorize,
            moderate=options.moderate,
            target=target,
        )

    async def _target(
        self, config: common_pb2.S3Config | None, job_id: JobId, project_id: ProjectId
    ) -> StorageTarget:
        async with self._database.read() as tx:
            project = await tx.projects.get(project_id)
        destination = effective_s3(
            s3_from_message(config) if config is not None else None,
            project.s3 if project else None,
            self._policy.operator_s3,
            operator_folder="" if project_id == self._policy.bootstrap_project_id else project_id,
            local_fallback=self._policy.local_fallback,
        )
        target = StorageTarget(
            project_id=project_id,
            scope=job_id,
            s3=destination.s3,
            prefix=destination.prefix,
            trusted=destination.trusted,
        )
        # Opening it now tells the caller of a refused endpoint instead of failing the job later; one that is only down
        # may be back by the time the job writes to it.
        with suppress(StorageError):
            await self._storage.open(target)
        return target

    async def _submit(
        self, spec: ConversionSpec, options: _Options, job_id: JobId, project_id: ProjectId
    ) -> pb.ConversionJob:
        job = NewJob(
            id=job_id,
            project_id=project_id,
            kind=CONVERSION_KIND,
            spec=spec.to_json(),
            metadata=from_value(options.metadata),
            secrets=spec.secrets(),
        )
        async with self._database.begin() as tx:
            earlier = await tx.jobs.get(project_id, job_id)
            if earlier is not None:
                return _repeated(earlier, job)
            created = await self._engine.submit(tx, job)
            await tx.commit()
        return job_to_message(created)


def _repeated(earlier: Job, job: NewJob) -> pb.ConversionJob:
    if earlier.spec != job.spec or earlier.metadata != job.metadata:
        raise failed_precondition(
            "this Idempotency-Key was used with another request", reason="IDEMPOTENCY_CONFLICT"
        )
    return job_to_message(earlier)


def too_large(limit: int) -> ServiceError:
    """B-60: 413 on REST."""
    return ServiceError(
        Code.RESOURCE_EXHAUSTED,
        f"video: must not be larger than {limit} bytes",
        reason="FILE_TOO_LARGE",
        field="video",
    )
