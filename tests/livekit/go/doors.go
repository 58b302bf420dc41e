package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
)

// open returns LiveKit's services at an address: over Twirp in protobuf, over Twirp in JSON, or over gRPC.
func open(door, address string) (livekit.RoomService, livekit.Egress, error) {
	client := http.DefaultClient
	switch door {
	case "twirp":
		return livekit.NewRoomServiceProtobufClient(address, client), livekit.NewEgressProtobufClient(address, client), nil
	case "json":
		return livekit.NewRoomServiceJSONClient(address, client), livekit.NewEgressJSONClient(address, client), nil
	case "grpc":
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		return grpcRooms{conn}, grpcEgress{conn}, err
	}
	return nil, nil, fmt.Errorf("no such door: %s", door)
}

// invoke makes one unary call; LiveKit's module has messages for gRPC, and no stubs.
func invoke[Reply proto.Message](
	ctx context.Context, conn *grpc.ClientConn, method string, request proto.Message, reply Reply,
) (Reply, error) {
	return reply, conn.Invoke(ctx, "/livekit."+method, request, reply)
}

type grpcRooms struct{ conn *grpc.ClientConn }

func (g grpcRooms) CreateRoom(ctx context.Context, r *livekit.CreateRoomRequest) (*livekit.Room, error) {
	return invoke(ctx, g.conn, "RoomService/CreateRoom", r, &livekit.Room{})
}

func (g grpcRooms) ListRooms(ctx context.Context, r *livekit.ListRoomsRequest) (*livekit.ListRoomsResponse, error) {
	return invoke(ctx, g.conn, "RoomService/ListRooms", r, &livekit.ListRoomsResponse{})
}

func (g grpcRooms) DeleteRoom(ctx context.Context, r *livekit.DeleteRoomRequest) (*livekit.DeleteRoomResponse, error) {
	return invoke(ctx, g.conn, "RoomService/DeleteRoom", r, &livekit.DeleteRoomResponse{})
}

func (g grpcRooms) ListParticipants(
	ctx context.Context, r *livekit.ListParticipantsRequest,
) (*livekit.ListParticipantsResponse, error) {
	return invoke(ctx, g.conn, "RoomService/ListParticipants", r, &livekit.ListParticipantsResponse{})
}

func (g grpcRooms) GetParticipant(
	ctx context.Context, r *livekit.RoomParticipantIdentity,
) (*livekit.ParticipantInfo, error) {
	return invoke(ctx, g.conn, "RoomService/GetParticipant", r, &livekit.ParticipantInfo{})
}

func (g grpcRooms) RemoveParticipant(
	ctx context.Context, r *livekit.RoomParticipantIdentity,
) (*livekit.RemoveParticipantResponse, error) {
	return invoke(ctx, g.conn, "RoomService/RemoveParticipant", r, &livekit.RemoveParticipantResponse{})
}

func (g grpcRooms) MutePublishedTrack(
	ctx context.Context, r *livekit.MuteRoomTrackRequest,
) (*livekit.MuteRoomTrackResponse, error) {
	return invoke(ctx, g.conn, "RoomService/MutePublishedTrack", r, &livekit.MuteRoomTrackResponse{})
}

func (g grpcRooms) UpdateParticipant(
	ctx context.Context, r *livekit.UpdateParticipantRequest,
) (*livekit.ParticipantInfo, error) {
	return invoke(ctx, g.conn, "RoomService/UpdateParticipant", r, &livekit.ParticipantInfo{})
}

func (g grpcRooms) UpdateSubscriptions(
	ctx context.Context, r *livekit.UpdateSubscriptionsRequest,
) (*livekit.UpdateSubscriptionsResponse, error) {
	return invoke(ctx, g.conn, "RoomService/UpdateSubscriptions", r, &livekit.UpdateSubscriptionsResponse{})
}

func (g grpcRooms) SendData(ctx context.Context, r *livekit.SendDataRequest) (*livekit.SendDataResponse, error) {
	return invoke(ctx, g.conn, "RoomService/SendData", r, &livekit.SendDataResponse{})
}

func (g grpcRooms) UpdateRoomMetadata(
	ctx context.Context, r *livekit.UpdateRoomMetadataRequest,
) (*livekit.Room, error) {
	return invoke(ctx, g.conn, "RoomService/UpdateRoomMetadata", r, &livekit.Room{})
}

func (g grpcRooms) ForwardParticipant(
	ctx context.Context, r *livekit.ForwardParticipantRequest,
) (*livekit.ForwardParticipantResponse, error) {
	return invoke(ctx, g.conn, "RoomService/ForwardParticipant", r, &livekit.ForwardParticipantResponse{})
}

func (g grpcRooms) MoveParticipant(
	ctx context.Context, r *livekit.MoveParticipantRequest,
) (*livekit.MoveParticipantResponse, error) {
	return invoke(ctx, g.conn, "RoomService/MoveParticipant", r, &livekit.MoveParticipantResponse{})
}

func (g grpcRooms) PerformRpc(ctx context.Context, r *livekit.PerformRpcRequest) (*livekit.PerformRpcResponse, error) {
	return invoke(ctx, g.conn, "RoomService/PerformRpc", r, &livekit.PerformRpcResponse{})
}

type grpcEgress struct{ conn *grpc.ClientConn }

func (g grpcEgress) info(ctx context.Context, method string, request proto.Message) (*livekit.EgressInfo, error) {
	return invoke(ctx, g.conn, "Egress/"+method, request, &livekit.EgressInfo{})
}

func (g grpcEgress) StartEgress(ctx context.Context, r *livekit.StartEgressRequest) (*livekit.EgressInfo, error) {
	return g.info(ctx, "StartEgress", r)
}

func (g grpcEgress) UpdateLayout(ctx context.Context, r *livekit.UpdateLayoutRequest) (*livekit.EgressInfo, error) {
	return g.info(ctx, "UpdateLayout", r)
}

func (g grpcEgress) UpdateStream(ctx context.Context, r *livekit.UpdateStreamRequest) (*livekit.EgressInfo, error) {
	return g.info(ctx, "UpdateStream", r)
}

func (g grpcEgress) ListEgress(
	ctx context.Context, r *livekit.ListEgressRequest,
) (*livekit.ListEgressResponse, error) {
	return invoke(ctx, g.conn, "Egress/ListEgress", r, &livekit.ListEgressResponse{})
}

func (g grpcEgress) StopEgress(ctx context.Context, r *livekit.StopEgressRequest) (*livekit.EgressInfo, error) {
	return g.info(ctx, "StopEgress", r)
}

func (g grpcEgress) StartRoomCompositeEgress(
	ctx context.Context, r *livekit.RoomCompositeEgressRequest,
) (*livekit.EgressInfo, error) {
	return g.info(ctx, "StartRoomCompositeEgress", r)
}

func (g grpcEgress) StartWebEgress(ctx context.Context, r *livekit.WebEgressRequest) (*livekit.EgressInfo, error) {
	return g.info(ctx, "StartWebEgress", r)
}

func (g grpcEgress) StartParticipantEgress(
	ctx context.Context, r *livekit.ParticipantEgressRequest,
) (*livekit.EgressInfo, error) {
	return g.info(ctx, "StartParticipantEgress", r)
}

func (g grpcEgress) StartTrackCompositeEgress(
	ctx context.Context, r *livekit.TrackCompositeEgressRequest,
) (*livekit.EgressInfo, error) {
	return g.info(ctx, "StartTrackCompositeEgress", r)
}

func (g grpcEgress) StartTrackEgress(ctx context.Context, r *livekit.TrackEgressRequest) (*livekit.EgressInfo, error) {
	return g.info(ctx, "StartTrackEgress", r)
}
