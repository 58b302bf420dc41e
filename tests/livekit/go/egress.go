package main

import (
	"context"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
)

// everyEgressCall does every operation of livekit.Egress on `room`, which it opens.
func everyEgressCall(
	answers *told, rooms livekit.RoomService, egress livekit.Egress, caller caller, room string,
) error {
	call(answers, caller, &auth.VideoGrant{RoomCreate: true}, "room", rooms.CreateRoom,
		&livekit.CreateRoomRequest{Name: room})
	ctx, err := caller.with(&auth.VideoGrant{RoomRecord: true})
	if err != nil {
		return err
	}
	documented(ctx, answers, egress, room)
	everyStart(ctx, answers, egress, room)
	badEgressCalls(ctx, answers, egress, room)
	call(answers, caller, &auth.VideoGrant{RoomAdmin: true, Room: room}, "no grant", egress.ListEgress,
		&livekit.ListEgressRequest{})
	return nil
}

// documented are the Go samples of LiveKit's documentation of the egress API, but for the room's name.
func documented(ctx context.Context, answers *told, egressClient livekit.Egress, room string) {
	streamRequest := &livekit.RoomCompositeEgressRequest{
		RoomName: room,
		Layout:   "speaker",
		Output: &livekit.RoomCompositeEgressRequest_Stream{
			Stream: &livekit.StreamOutput{
				Protocol: livekit.StreamProtocol_RTMP,
				Urls:     []string{"rtmp://live.twitch.tv/app/<stream-key>"},
			},
		},
	}
	info, err := egressClient.StartRoomCompositeEgress(ctx, streamRequest)
	answers.answer("stream", info, err)
	egressID := info.GetEgressId()
	info, err = egressClient.UpdateStream(ctx, &livekit.UpdateStreamRequest{
		EgressId:      egressID,
		AddOutputUrls: []string{"rtmp://a.rtmp.youtube.com/live2/<stream-key>"},
	})
	answers.answer("update stream", info, err)
	info, err = egressClient.UpdateLayout(ctx, &livekit.UpdateLayoutRequest{
		EgressId: egressID,
		Layout:   "grid-light",
	})
	answers.answer("update layout", info, err)
	res, err := egressClient.ListEgress(ctx, &livekit.ListEgressRequest{})
	answers.answer("list", res, err)
	info, err = egressClient.StopEgress(ctx, &livekit.StopEgressRequest{
		EgressId: egressID,
	})
	answers.answer("stop", info, err)
}

func everyStart(ctx context.Context, answers *told, egress livekit.Egress, room string) {
	upload := &livekit.EncodedFileOutput_S3{S3: &livekit.S3Upload{
		AccessKey: "<key>", Secret: "<secret>", Bucket: "<bucket>", Region: "<bucket-region>",
	}}
	files := []*livekit.EncodedFileOutput{{
		FileType: livekit.EncodedFileType_MP4, Filepath: "{room_name}-{time}", Output: upload,
	}}
	info, err := egress.StartRoomCompositeEgress(ctx, &livekit.RoomCompositeEgressRequest{
		RoomName: room, Layout: "speaker", FileOutputs: files,
		Options: &livekit.RoomCompositeEgressRequest_Preset{Preset: livekit.EncodingOptionsPreset_H264_1080P_30},
		SegmentOutputs: []*livekit.SegmentedFileOutput{{
			FilenamePrefix: "hls/part", PlaylistName: "hls/index.m3u8", SegmentDuration: 2,
		}},
		ImageOutputs: []*livekit.ImageOutput{{CaptureInterval: 5, FilenamePrefix: "shot"}},
	})
	answers.answer("room composite", info, err)
	info, err = egress.StartParticipantEgress(ctx, &livekit.ParticipantEgressRequest{
		RoomName: room, Identity: "ann", ScreenShare: true, FileOutputs: files,
	})
	answers.answer("participant", info, err)
	info, err = egress.StartTrackCompositeEgress(ctx, &livekit.TrackCompositeEgressRequest{
		RoomName: room, AudioTrackId: "TR_a", VideoTrackId: "TR_v", FileOutputs: files,
	})
	answers.answer("track composite", info, err)
	info, err = egress.StartTrackEgress(ctx, &livekit.TrackEgressRequest{
		RoomName: room, TrackId: "TR_a", Output: &livekit.TrackEgressRequest_WebsocketUrl{WebsocketUrl: "wss://example.com/in"},
	})
	answers.answer("track", info, err)
	info, err = egress.StartWebEgress(ctx, &livekit.WebEgressRequest{Url: "https://example.com", FileOutputs: files})
	answers.answer("web", info, err)
	info, err = egress.StartEgress(ctx, &livekit.StartEgressRequest{
		RoomName: room,
		Source:   &livekit.StartEgressRequest_Template{Template: &livekit.TemplateSource{Layout: "grid"}},
		Outputs:  []*livekit.Output{{Config: &livekit.Output_File{File: &livekit.FileOutput{Filepath: "one-call"}}}},
	})
	answers.answer("start", info, err)
	res, err := egress.ListEgress(ctx, &livekit.ListEgressRequest{RoomName: room, Active: true})
	answers.answer("list of room", res, err)
	res, err = egress.ListEgress(ctx, &livekit.ListEgressRequest{EgressId: info.GetEgressId()})
	answers.answer("list one", res, err)
	info, err = egress.UpdateStream(ctx, &livekit.UpdateStreamRequest{
		EgressId: info.GetEgressId(), AddOutputUrls: []string{"rtmp://live.example.com/app/key"},
	})
	answers.answer("no stream to update", info, err)
}

func badEgressCalls(ctx context.Context, answers *told, egress livekit.Egress, room string) {
	file := &livekit.RoomCompositeEgressRequest_File{File: &livekit.EncodedFileOutput{}}
	info, err := egress.StartRoomCompositeEgress(ctx, &livekit.RoomCompositeEgressRequest{
		RoomName: room + "-missing", Output: file,
	})
	answers.answer("missing room", info, err)
	info, err = egress.StartRoomCompositeEgress(ctx, &livekit.RoomCompositeEgressRequest{RoomName: room})
	answers.answer("no output", info, err)
	const missing = "EG_missing"
	info, err = egress.StopEgress(ctx, &livekit.StopEgressRequest{EgressId: missing})
	answers.answer("stop missing", info, err)
	info, err = egress.UpdateLayout(ctx, &livekit.UpdateLayoutRequest{EgressId: missing, Layout: "grid"})
	answers.answer("update missing layout", info, err)
	info, err = egress.UpdateStream(ctx, &livekit.UpdateStreamRequest{
		EgressId: missing, AddOutputUrls: []string{"rtmp://live.example.com/app/key"},
	})
	answers.answer("update missing stream", info, err)
}
