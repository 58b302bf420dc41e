// Every RoomService operation of LiveKit's own Node SDK; prints what each gave as one JSON list.
import { DataPacket_Kind, RoomServiceClient } from "livekit-server-sdk";

const [url, apiKey, apiSecret, room] = process.argv.slice(2);
const client = new RoomServiceClient(url, apiKey, apiSecret);
const told = [];

const plain = (value) => {
  if (value === undefined || value === null) return null;
  if (Array.isArray(value)) return value.map(plain);
  return typeof value.toJson === "function" ? value.toJson() : value;
};

const tell = async (name, call) => {
  try {
    const value = await call();
    told.push([name, plain(value)]);
    return value;
  } catch (error) {
    told.push([name, { error: error.name, status: error.status, code: error.code }]);
    return undefined;
  }
};

await tell("create", () => client.createRoom({ name: room, metadata: "first", maxParticipants: 7 }));
await tell("list", () => client.listRooms([room]));
await tell("list none", () => client.listRooms([`${room}-missing`]));
await tell("room metadata", () => client.updateRoomMetadata(room, "second"));
await tell("participants", () => client.listParticipants(room));
const alice = await tell("participant", () => client.getParticipant(room, "alice"));
const track = alice?.tracks?.[0]?.sid ?? "TR_none";
await tell("update", () =>
  client.updateParticipant(room, "alice", { metadata: "m", name: "Alice", attributes: { a: "1" } }),
);
await tell("mute", () => client.mutePublishedTrack(room, "alice", track, true));
await tell("unmute", () => client.mutePublishedTrack(room, "alice", track, false));
await tell("subscriptions", () => client.updateSubscriptions(room, "alice", [track], false));
await tell("data", () =>
  client.sendData(room, new Uint8Array([1, 2]), DataPacket_Kind.RELIABLE, { destinationIdentities: ["alice"] }),
);
await tell("forward", () => client.forwardParticipant(room, "alice", `${room}-there`));
await tell("move", () => client.moveParticipant(room, "alice", `${room}-there`));
await tell("missing participant", () => client.getParticipant(room, "nobody"));
await tell("remove", () => client.removeParticipant(room, "alice"));
await tell("remove again", () => client.removeParticipant(room, "nobody"));
await tell("delete", () => client.deleteRoom(room));
await tell("delete again", () => client.deleteRoom(`${room}-missing`));
const stranger = new RoomServiceClient(url, apiKey, "x".repeat(40));
await tell("wrong secret", () => stranger.listRooms());
console.log(JSON.stringify(told));
