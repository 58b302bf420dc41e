// Calls a server as LiveKit's command line and Go SDK do, with the same unmodified clients of
// github.com/livekit/protocol, and as a Go program with the stubs of generated/go does; prints what each call gave
// as one JSON list of [name, answer].
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/livekit/protocol/auth"
	"github.com/twitchtv/twirp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

const usage = `usage: client rooms|egress DOOR ADDRESS KEY SECRET ROOM    DOOR: twirp, json or grpc
       client token KEY SECRET ROOM IDENTITY
       client stubs GRPC_ADDRESS API_KEY PROJECT`

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
	defer cancel()
	answers, err := run(ctx, os.Args[1:])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(answers)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) (*told, error) {
	answers := &told{}
	switch {
	case len(arguments) == 6 && (arguments[0] == "rooms" || arguments[0] == "egress"):
		rooms, egress, err := open(arguments[1], arguments[2])
		if err != nil {
			return nil, err
		}
		caller := caller{ctx, arguments[3], arguments[4]}
		if arguments[0] == "rooms" {
			everyRoomCall(answers, rooms, caller, arguments[5])
			return answers, nil
		}
		return answers, everyEgressCall(answers, rooms, egress, caller, arguments[5])
	case len(arguments) == 5 && arguments[0] == "token":
		return answers, joinToken(answers, arguments[1], arguments[2], arguments[3], arguments[4])
	case len(arguments) == 4 && arguments[0] == "stubs":
		return answers, ownStubs(ctx, answers, arguments[1], arguments[2], arguments[3])
	}
	return nil, errors.New(usage)
}

// caller signs what the SDK signs: a token of its own for each call, with the one grant that the call needs.
type caller struct {
	ctx         context.Context
	key, secret string
}

// with returns a context that carries the token both to Twirp and to gRPC.
func (c caller) with(grant *auth.VideoGrant) (context.Context, error) {
	token, err := auth.NewAccessToken(c.key, c.secret).SetVideoGrant(grant).SetValidFor(time.Minute).ToJWT()
	if err != nil {
		return nil, err
	}
	header := map[string][]string{"Authorization": {"Bearer " + token}}
	ctx, err := twirp.WithHTTPRequestHeaders(c.ctx, header)
	if err != nil {
		return nil, err
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), nil
}

// joinToken makes what `lk token create --join` makes.
func joinToken(answers *told, key, secret, room, identity string) error {
	grant := &auth.VideoGrant{RoomJoin: true, Room: room}
	grant.SetCanPublishData(false)
	token, err := auth.NewAccessToken(key, secret).
		SetVideoGrant(grant).
		SetIdentity(identity).
		SetName("From Go").
		SetMetadata("by the Go client").
		SetAttributes(map[string]string{"language": "go"}).
		SetValidFor(10 * time.Minute).
		ToJWT()
	answers.add("token", token)
	return err
}

// told is what is printed.
type told struct{ calls [][2]any }

func (t *told) MarshalJSON() ([]byte, error) { return json.Marshal(t.calls) }

func (t *told) add(name string, value any) { t.calls = append(t.calls, [2]any{name, value}) }

// answer notes what a call gave: its reply as JSON, or its error in Twirp's terms.
func (t *told) answer(name string, reply proto.Message, err error) {
	if err != nil {
		t.add(name, failure(err))
		return
	}
	text, err := protojson.Marshal(reply)
	if err != nil {
		t.add(name, failure(err))
		return
	}
	t.add(name, json.RawMessage(text))
}

func failure(err error) map[string]any {
	if failed, ok := errors.AsType[twirp.Error](err); ok {
		return map[string]any{"code": failed.Code(), "message": failed.Msg(), "meta": failed.MetaMap()}
	}
	failed := status.Convert(err)
	return map[string]any{"code": snake(failed.Code()), "message": failed.Message()}
}

// snake is Twirp's spelling of a gRPC code.
func snake(code codes.Code) string {
	var spelled strings.Builder
	for place, letter := range code.String() {
		if unicode.IsUpper(letter) && place > 0 {
			spelled.WriteByte('_')
		}
		spelled.WriteRune(unicode.ToLower(letter))
	}
	return spelled.String()
}
