package main

import (
	"context"
	"strings"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"
)

// call asks with a grant and notes what came; a token that cannot be signed is such an answer as well.
func call[Request any, Reply proto.Message](
	answers *told, caller caller, grant *auth.VideoGrant, name string,
	method func(context.Context, Request) (Reply, error), request Request,
) Reply {
	var reply Reply
	ctx, err := caller.with(grant)
	if err == nil {
		reply, err = method(ctx, request)
	}
	answers.answer(name, reply, err)
	return reply
}

// everyRoomCall does every operation of livekit.RoomService in `room`, where alice must be and publish a track.
func everyRoomCall(answers *told, rooms livekit.RoomService, caller caller, room string) {
	create, list := &auth.VideoGrant{RoomCreate: true}, &auth.VideoGrant{RoomList: true}
	admin := &auth.VideoGrant{RoomAdmin: true, Room: room}
	there := room + "-there"
	move := &auth.VideoGrant{RoomAdmin: true, Room: room, DestinationRoom: there}
	alice := &livekit.RoomParticipantIdentity{Room: room, Identity: "alice"}
	nobody := &livekit.RoomParticipantIdentity{Room: room, Identity: "nobody"}

	call(answers, caller, create, "create", rooms.CreateRoom, &livekit.CreateRoomRequest{
		Name: room + "-new", EmptyTimeout: 33, DepartureTimeout: 7, Metadata: "first", MaxParticipants: 7,
	})
	call(answers, caller, create, "create again", rooms.CreateRoom, &livekit.CreateRoomRequest{Name: room})
	call(answers, caller, list, "list", rooms.ListRooms, &livekit.ListRoomsRequest{Names: []string{room}})
	call(answers, caller, list, "list none", rooms.ListRooms, &livekit.ListRoomsRequest{Names: []string{room + "-missing"}})
	call(answers, caller, admin, "room metadata", rooms.UpdateRoomMetadata,
		&livekit.UpdateRoomMetadataRequest{Room: room, Metadata: "second"})
	call(answers, caller, admin, "participants", rooms.ListParticipants, &livekit.ListParticipantsRequest{Room: room})
	found := call(answers, caller, admin, "participant", rooms.GetParticipant, alice)
	track := "TR_none"
	if published := found.GetTracks(); len(published) > 0 {
		track = published[0].Sid
	}
	call(answers, caller, admin, "update", rooms.UpdateParticipant, &livekit.UpdateParticipantRequest{
		Room: room, Identity: "alice", Metadata: "m", Name: "Alice", Attributes: map[string]string{"a": "1"},
		Permission: &livekit.ParticipantPermission{CanPublish: true, CanSubscribe: true, CanPublishData: true},
	})
	mute := &livekit.MuteRoomTrackRequest{Room: room, Identity: "alice", TrackSid: track, Muted: true}
	call(answers, caller, admin, "mute", rooms.MutePublishedTrack, mute)
	call(answers, caller, admin, "subscriptions", rooms.UpdateSubscriptions,
		&livekit.UpdateSubscriptionsRequest{Room: room, Identity: "alice", TrackSids: []string{track}})
	call(answers, caller, admin, "data", rooms.SendData, &livekit.SendDataRequest{
		Room: room, Data: []byte("hi"), DestinationIdentities: []string{"alice"}, Topic: proto.String("t"),
	})
	call(answers, caller, admin, "rpc", rooms.PerformRpc, &livekit.PerformRpcRequest{
		Room: room, DestinationIdentity: "alice", Method: "nope", ResponseTimeoutMs: 2000,
	})
	call(answers, caller, move, "forward", rooms.ForwardParticipant,
		&livekit.ForwardParticipantRequest{Room: room, Identity: "alice", DestinationRoom: there})
	call(answers, caller, move, "move", rooms.MoveParticipant,
		&livekit.MoveParticipantRequest{Room: room, Identity: "alice", DestinationRoom: there})
	badRoomCalls(answers, rooms, caller, room)
	call(answers, caller, admin, "remove", rooms.RemoveParticipant, alice)
	call(answers, caller, admin, "remove nobody", rooms.RemoveParticipant, nobody)
	call(answers, caller, create, "delete", rooms.DeleteRoom, &livekit.DeleteRoomRequest{Room: room})
	call(answers, caller, create, "delete missing", rooms.DeleteRoom, &livekit.DeleteRoomRequest{Room: room + "-missing"})
}

// badRoomCalls asks for what is not there, is too long, or may not be asked for.
func badRoomCalls(answers *told, rooms livekit.RoomService, signer caller, room string) {
	admin := &auth.VideoGrant{RoomAdmin: true, Room: room}
	nobody := &livekit.RoomParticipantIdentity{Room: room, Identity: "nobody"}
	long := strings.Repeat("n", 257)
	call(answers, signer, &auth.VideoGrant{RoomCreate: true}, "long room name", rooms.CreateRoom,
		&livekit.CreateRoomRequest{Name: long})
	call(answers, signer, admin, "nobody", rooms.GetParticipant, nobody)
	call(answers, signer, admin, "no identity", rooms.GetParticipant, &livekit.RoomParticipantIdentity{Room: room})
	call(answers, signer, admin, "long name", rooms.UpdateParticipant,
		&livekit.UpdateParticipantRequest{Room: room, Identity: "alice", Name: long})
	call(answers, signer, admin, "unknown track", rooms.MutePublishedTrack,
		&livekit.MuteRoomTrackRequest{Room: room, Identity: "alice", TrackSid: "TR_nope", Muted: true})
	call(answers, signer, admin, "short nonce", rooms.SendData,
		&livekit.SendDataRequest{Room: room, Data: []byte("hi"), Nonce: []byte("hi")})
	call(answers, signer, admin, "another room", rooms.ListParticipants,
		&livekit.ListParticipantsRequest{Room: room + "-missing"})
	call(answers, signer, &auth.VideoGrant{RoomJoin: true, Room: room}, "joins only", rooms.GetParticipant, nobody)
	call(answers, signer, &auth.VideoGrant{}, "no grant", rooms.ListRooms, &livekit.ListRoomsRequest{})
	stranger := caller{signer.ctx, signer.key, strings.Repeat("x", 40)}
	call(answers, stranger, &auth.VideoGrant{RoomList: true}, "wrong secret", rooms.ListRooms, &livekit.ListRoomsRequest{})
}
