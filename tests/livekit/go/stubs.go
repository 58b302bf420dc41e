package main

import (
	"bytes"
	"context"
	"io"
	"strings"

	baxcloudv1 "github.com/baxcloud/baxcloud/generated/go/baxcloud/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// ownStubs calls baxcloud.v1 with the stubs of generated/go: unary calls, one that is refused, an upload and a watch.
func ownStubs(ctx context.Context, answers *told, address, apiKey, project string) error {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+apiKey, "x-project-id", project)

	projects := baxcloudv1.NewProjectServiceClient(conn)
	found, err := projects.GetProject(ctx, &baxcloudv1.GetProjectRequest{ProjectId: project})
	answers.answer("project", found, err)

	videos := baxcloudv1.NewVideoConversionServiceClient(conn)
	var trailer metadata.MD
	job, err := videos.CreateConversionJob(ctx, &baxcloudv1.CreateConversionJobRequest{
		InputUrl: "https://example.com/a.mp4", HlsTime: proto.Float64(11),
	}, grpc.Trailer(&trailer))
	answers.answer("refused", job, err)
	answers.add("refused field", strings.Join(trailer.Get("bax-field"), ","))

	job, err = upload(ctx, videos)
	answers.answer("upload", job, err)
	if err != nil {
		return nil
	}
	return watch(ctx, answers, videos, job.GetId())
}

// upload sends what is no video.
func upload(
	ctx context.Context, videos baxcloudv1.VideoConversionServiceClient,
) (*baxcloudv1.ConversionJob, error) {
	parts, err := videos.UploadVideo(ctx)
	if err != nil {
		return nil, err
	}
	options := &baxcloudv1.UploadOptions{Filename: "from-go.mp4", OutputFormats: []string{"360p"}}
	sent := []*baxcloudv1.UploadVideoRequest{
		{Part: &baxcloudv1.UploadVideoRequest_Options{Options: options}},
		{Part: &baxcloudv1.UploadVideoRequest_Chunk{Chunk: bytes.Repeat([]byte("no video "), 1000)}},
	}
	for _, part := range sent {
		if err := parts.Send(part); err != nil && err != io.EOF {
			return nil, err
		}
	}
	return parts.CloseAndRecv()
}

// watch notes the job as it ends.
func watch(
	ctx context.Context, answers *told, videos baxcloudv1.VideoConversionServiceClient, jobID string,
) error {
	states, err := videos.WatchConversionJob(ctx, &baxcloudv1.WatchConversionJobRequest{JobId: jobID})
	if err != nil {
		return err
	}
	var last *baxcloudv1.ConversionJob
	for {
		job, err := states.Recv()
		if err == io.EOF {
			answers.answer("ended", last, nil)
			return nil
		}
		if err != nil {
			return err
		}
		last = job
	}
}
