// The egress calls of LiveKit's documents, as they stand there but for host, keys and ids; prints what each gave.
import {
  EgressClient, EncodedFileOutput, EncodedFileType, EncodingOptionsPreset, RoomServiceClient, S3Upload,
  SegmentedFileOutput, StreamOutput, StreamProtocol, ImageOutput,
} from "livekit-server-sdk";

const [url, apiKey, apiSecret, room] = process.argv.slice(2);
const egressClient = new EgressClient(url, apiKey, apiSecret);
const told = {};

const plain = (value) => {
  if (value === undefined || value === null) return null;
  if (Array.isArray(value)) return value.map(plain);
  return typeof value.toJson === "function" ? value.toJson() : value;
};

const tell = async (name, call) => {
  try {
    const value = await call();
    told[name] = plain(value);
    return value;
  } catch (error) {
    told[name] = { error: error.name, status: error.status, code: error.code, message: error.message };
    return undefined;
  }
};

await new RoomServiceClient(url, apiKey, apiSecret).createRoom({ name: room });

const streamOutput = new StreamOutput({
  protocol: StreamProtocol.RTMP,
  urls: ["rtmp://live.twitch.tv/app/<stream-key>"],
});
let info = await tell("stream", () => egressClient.startRoomCompositeEgress(room, { stream: streamOutput }));
const streamEgressID = info.egressId;
await tell("update stream", () =>
  egressClient.updateStream(streamEgressID, ["rtmp://a.rtmp.youtube.com/live2/stream-key"]),
);
await tell("update layout", () => egressClient.updateLayout(streamEgressID, "grid-light"));
await tell("list", () => egressClient.listEgress());
await tell("list of room", () => egressClient.listEgress({ roomName: room, active: true }));
await tell("stop", () => egressClient.stopEgress(streamEgressID));

const s3 = new S3Upload({ accessKey: "<key>", secret: "<secret>", bucket: "<bucket>", region: "<bucket-region>" });
const file = new EncodedFileOutput({
  filepath: "{room_name}-{time}", fileType: EncodedFileType.MP4, output: { case: "s3", value: s3 },
});
const segments = new SegmentedFileOutput({ filenamePrefix: "hls/part", playlistName: "hls/index.m3u8" });
const images = new ImageOutput({ captureInterval: 5, filenamePrefix: "shot" });
await tell("all outputs", () =>
  egressClient.startRoomCompositeEgress(
    room,
    { file, segments, images, stream: streamOutput },
    { layout: "speaker", encodingOptions: EncodingOptionsPreset.H264_1080P_30 },
  ),
);
await tell("old file form", () => egressClient.startRoomCompositeEgress(room, file));
await tell("participant", () => egressClient.startParticipantEgress(room, "ann", { file }, { screenShare: true }));
await tell("track composite", () =>
  egressClient.startTrackCompositeEgress(room, { file }, { audioTrackId: "TR_a", videoTrackId: "TR_v" }),
);
await tell("track", () => egressClient.startTrackEgress(room, "wss://example.com/in", "TR_a"));
await tell("web", () => egressClient.startWebEgress("https://example.com", { file }));
await tell("missing room", () => egressClient.startRoomCompositeEgress(`${room}-missing`, { file }));
await tell("missing egress", () => egressClient.stopEgress("EG_missing"));
await tell("no output", () => egressClient.startRoomCompositeEgress(room, {}));
console.log(JSON.stringify(told));
