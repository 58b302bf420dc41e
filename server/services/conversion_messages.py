"""A stored conversion job as its protobuf message."""

from __future__ import annotations

from google.protobuf.json_format import ParseDict

from generated.baxcloud.v1 import video_conversion_pb2 as pb
from server.domain.job import Job, JobStatus, Progress
from server.services.messages import to_timestamp, to_value

_RESULT_FIELDS = {
    "outputUrl": "output_url",
    "thumbnailUrl": "thumbnail_url",
    "durationSec": "duration_sec",
    "segmentsCount": "segments_count",
    "costCents": "cost_cents",
}


def job_to_message(job: Job) -> pb.ConversionJob:
    """What every transport shows of a conversion job (VC-26, VC-42); never anything of its storage credentials."""
    spec = job.spec
    # A failed job's objects are removed, so their addresses are not shown either.
    result = {} if job.status is JobStatus.FAILED else job.result
    message = pb.ConversionJob(
        id=job.id,
        project_id=job.project_id,
        status=job.status.value,
        input_url=spec["inputUrl"],
        output_formats=spec["outputFormats"],
        ffmpeg_preset=spec["ffmpegPreset"],
        hls_time=spec["hlsTime"],
        categorize=spec["categorize"],
        moderate=spec["moderate"],
        metadata=to_value(job.metadata),
        rendition_urls=result.get("renditionUrls"),
        warnings=result.get("warnings"),
        error_code=job.error_code,
        error_message=job.error_message,
        created_at=to_timestamp(job.created_at),
        started_at=to_timestamp(job.started_at),
        playable_at=to_timestamp(job.playable_at),
        completed_at=to_timestamp(job.completed_at),
        failed_at=to_timestamp(job.failed_at),
        **{field: result[key] for key, field in _RESULT_FIELDS.items() if key in result},
    )
    if job.progress and job.status is JobStatus.PROCESSING:
        message.progress.CopyFrom(_progress(job.progress))
    for name in ("categorization", "moderation"):
        if name in result:
            ParseDict(result[name], getattr(message, name))
    return message


def _progress(progress: Progress) -> pb.ConversionJob.Progress:
    return pb.ConversionJob.Progress(
        percent=round(progress.percent, 1),
        stage=progress.stage,
        speed=None if progress.speed is None else round(progress.speed, 2),
        eta_sec=None if progress.eta_sec is None else round(progress.eta_sec, 1),
    )
