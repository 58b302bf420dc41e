"use strict";
// A page that joins one room: #url=<LiveKit's websocket address>&token=<access token>. Both stand in the fragment,
// which browsers send to nobody.

const { Room, RoomEvent, ConnectionState, DisconnectReason, Track } = window.LivekitClient ?? {};
const byId = (id) => document.getElementById(id);
const tiles = byId("tiles");
const buttons = { sound: byId("sound"), camera: byId("camera"), microphone: byId("microphone"), leave: byId("leave") };
const reasons = Room && {
  [DisconnectReason.CLIENT_INITIATED]: "You left the room.",
  [DisconnectReason.DUPLICATE_IDENTITY]: "You joined from elsewhere.",
  [DisconnectReason.PARTICIPANT_REMOVED]: "You were removed from the room.",
  [DisconnectReason.ROOM_DELETED]: "The room was closed.",
};
let room = null;
let soundOn = false;

function say(text) {
  byId("state").textContent = text;
}

function complain(text) {
  byId("error").textContent = text;
}

// One tile per participant, one <video> per picture in it.

function tileOf(participant) {
  const known = [...tiles.children].find((tile) => tile.dataset.identity === participant.identity);
  if (known) return known;
  const tile = document.createElement("li");
  tile.className = "tile";
  tile.dataset.identity = participant.identity;
  const name = document.createElement("span");
  name.className = "name";
  tile.append(name);
  tiles.append(tile);
  return tile;
}

function labelOf(participant) {
  return (participant.name || participant.identity) + (participant === room.localParticipant ? " (you)" : "");
}

function showName(participant) {
  tileOf(participant).querySelector(".name").textContent = labelOf(participant);
}

function showPeople() {
  const count = room.numParticipants || room.remoteParticipants.size + 1;
  say(`Connected, ${count === 1 ? "nobody else is here" : `${count} people`}`);
}

function attach(track, participant) {
  if (track.kind === Track.Kind.Audio && (!soundOn || participant === room.localParticipant)) return;
  const element = track.attach();
  if (track.kind === Track.Kind.Video) element.setAttribute("aria-label", `Picture of ${labelOf(participant)}`);
  tileOf(participant).prepend(element);
}

function detach(track) {
  for (const element of track.detach()) element.remove();
}

function remoteAudio() {
  return [...room.remoteParticipants.values()].flatMap((participant) =>
    [...participant.audioTrackPublications.values()]
      .filter((publication) => publication.track)
      .map((publication) => ({ participant, track: publication.track })),
  );
}

// Sound needs a click: browsers start none by themselves.
async function toggleSound() {
  soundOn = !soundOn;
  for (const { track, participant } of remoteAudio()) soundOn ? attach(track, participant) : detach(track);
  if (soundOn) await room.startAudio();
}

function showControls() {
  const inside = room?.state === ConnectionState.Connected;
  const own = room?.localParticipant;
  const mayPublish = inside && own.permissions?.canPublish !== false;
  buttons.sound.disabled = buttons.leave.disabled = !inside;
  buttons.camera.disabled = buttons.microphone.disabled = !mayPublish;
  for (const [button, on] of [
    [buttons.sound, soundOn],
    [buttons.camera, own?.isCameraEnabled],
    [buttons.microphone, own?.isMicrophoneEnabled],
  ]) {
    button.setAttribute("aria-pressed", String(Boolean(inside && on)));
  }
}

function onClick(button, what, action) {
  button.addEventListener("click", async () => {
    button.disabled = true;
    complain("");
    try {
      await action();
    } catch (error) {
      complain(`${what}: ${error.message}`);
    }
    showControls();
  });
}

function onLeft(reason) {
  tiles.replaceChildren();
  say(reasons[reason] ?? "Disconnected.");
  showControls();
}

function listen() {
  room
    .on(RoomEvent.ParticipantConnected, (participant) => (showName(participant), showPeople()))
    .on(RoomEvent.ParticipantDisconnected, (participant) => (tileOf(participant).remove(), showPeople()))
    .on(RoomEvent.ParticipantNameChanged, (_, participant) => showName(participant))
    .on(RoomEvent.TrackSubscribed, (track, _, participant) => attach(track, participant))
    .on(RoomEvent.TrackUnsubscribed, detach)
    .on(RoomEvent.LocalTrackPublished, ({ track }, participant) => (attach(track, participant), showControls()))
    .on(RoomEvent.LocalTrackUnpublished, ({ track }) => (track && detach(track), showControls()))
    .on(RoomEvent.TrackMuted, showControls)
    .on(RoomEvent.TrackUnmuted, showControls)
    .on(RoomEvent.ParticipantPermissionsChanged, showControls)
    .on(RoomEvent.ActiveSpeakersChanged, (speakers) => {
      const loud = new Set(speakers.map((speaker) => speaker.identity));
      for (const tile of tiles.children) tile.classList.toggle("speaking", loud.has(tile.dataset.identity));
    })
    .on(RoomEvent.Reconnecting, () => (say("Connection lost, reconnecting…"), showControls()))
    .on(RoomEvent.Reconnected, () => (showPeople(), showControls()))
    .on(RoomEvent.Disconnected, onLeft);
}

async function join(url, token) {
  room = new Room({ adaptiveStream: true, dynacast: true });
  listen();
  say("Connecting…");
  try {
    await room.connect(url, token);
  } catch (error) {
    say("Not connected.");
    complain(`Cannot join: ${error.message}`);
    return;
  }
  byId("title").textContent = room.name;
  document.title = `${room.name} – BaxCloud room`;
  for (const participant of [room.localParticipant, ...room.remoteParticipants.values()]) showName(participant);
  showPeople();
  showControls();
}

onClick(buttons.sound, "No sound", toggleSound);
onClick(buttons.camera, "No camera", () => room.localParticipant.setCameraEnabled(!room.localParticipant.isCameraEnabled));
onClick(buttons.microphone, "No microphone", () =>
  room.localParticipant.setMicrophoneEnabled(!room.localParticipant.isMicrophoneEnabled),
);
onClick(buttons.leave, "Cannot leave", () => room.disconnect());

const link = new URLSearchParams(location.hash.slice(1));
if (!Room) {
  say("Not connected.");
  complain("livekit-client is not bundled: run make setup on the server.");
} else if (!link.get("url") || !link.get("token")) {
  say("Not connected.");
  complain("This page needs a join link, which ends in #url=…&token=….");
} else {
  join(link.get("url"), link.get("token"));
}

// Another link opened in the same tab changes the fragment alone.
window.addEventListener("hashchange", () => location.reload());
