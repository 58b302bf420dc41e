"use strict";
// A page that plays one HLS stream: ?src=<address of a master.m3u8>.

const video = document.getElementById("video");
const state = document.getElementById("state");
const levels = document.getElementById("levels");
const input = document.getElementById("src");
let hls = null;

function say(text) {
  state.textContent = text;
}

function levelButton(label, index) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label;
  button.setAttribute("aria-pressed", String(hls.autoLevelEnabled ? index === -1 : index === hls.currentLevel));
  button.addEventListener("click", () => {
    hls.currentLevel = index;
    showLevels();
  });
  const item = document.createElement("li");
  item.append(button);
  return item;
}

function describe(level) {
  // A media playlist played by itself, as that of a room's recording, says nothing of what it holds.
  if (!level.bitrate) return video.videoWidth ? `${video.videoWidth}×${video.videoHeight}` : "the stream";
  const size = level.width ? `${level.width}×${level.height}` : "audio";
  return `${size}, ${Math.round(level.bitrate / 1000)} kbit/s`;
}

function showPlaying() {
  if (hls && hls.currentLevel >= 0) say(`Playing ${describe(hls.levels[hls.currentLevel])}`);
}

function showLevels() {
  if (hls.levels.length === 1) return;
  levels.replaceChildren(levelButton("auto", -1), ...hls.levels.map((level, i) => levelButton(describe(level), i)));
}

function play(address) {
  if (hls) hls.destroy();
  levels.replaceChildren();
  say("Loading…");
  if (!window.Hls || !Hls.isSupported()) {
    // Safari plays HLS itself.
    video.src = address;
    video.play().catch(() => {});
    return;
  }
  hls = new Hls();
  hls.on(Hls.Events.MANIFEST_PARSED, () => {
    showLevels();
    video.play().catch(() => say("Press play."));
  });
  hls.on(Hls.Events.LEVEL_SWITCHED, () => {
    showLevels();
    showPlaying();
  });
  hls.on(Hls.Events.ERROR, (_, error) => {
    if (error.fatal) say(`Cannot play: ${error.details}`);
  });
  hls.loadSource(address);
  hls.attachMedia(video);
}

// The size is known with the first picture only.
video.addEventListener("resize", showPlaying);

document.getElementById("open").addEventListener("submit", (event) => {
  event.preventDefault();
  play(input.value);
});

const wanted = new URLSearchParams(location.search).get("src");
if (wanted) {
  input.value = wanted;
  play(wanted);
}
