// The page: people, a recording, and what to do with it.

import * as api from "./api.js";
import { Recorder, wavFile } from "./recorder.js";
import { element, showCandidates, showDecision, showEnrolment, showMessage, showProblem } from "./result.js";
import { draw } from "./spectrogram.js";

const $ = (id) => document.getElementById(id);
const LONGEST = 30; // seconds of a recording from the microphone
const SHORTEST = 0.3;

const state = { about: null, person: "", audio: null, recorder: null, address: "", busy: false };

function may(scope) {
  return state.about?.scopes.includes(scope) ?? false;
}

function status(text) {
  $("record-status").textContent = text;
}

function refresh() {
  const ready = state.audio !== null && !state.busy && !state.recorder;
  $("enrol").disabled = !(ready && state.person && may("enrol"));
  $("verify").disabled = !(ready && state.person && may("verify"));
  $("identify").disabled = !(ready && may("identify"));
  $("copy").disabled = !(ready && may("copy"));
  $("copy").hidden = !may("copy");
  $("record").disabled = state.busy;
  if (state.person && state.audio) $("chosen").textContent = `The recording, and ${state.person}.`;
  else if (state.person) $("chosen").textContent = `${state.person} is chosen. Record something, or choose a file.`;
  else if (state.audio) $("chosen").textContent = "Choose a person, or ask who it is.";
  else $("chosen").textContent = "Choose a person and record something.";
}

// Runs one request at a time, and shows what went wrong.
async function act(work) {
  state.busy = true;
  refresh();
  document.body.setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    if (error.status === 401) $("key-form").hidden = false;
    showProblem(error);
  } finally {
    state.busy = false;
    document.body.removeAttribute("aria-busy");
    refresh();
  }
}

function showRing(percentage) {
  const rounded = Math.round(percentage);
  $("ring").setAttribute("aria-valuenow", rounded);
  $("ring-text").textContent = percentage >= 100 ? "enrolled" : `${rounded} %\nenrolled`;
  $("ring-arc").style.strokeDashoffset = 100 - Math.min(100, percentage);
}

function percentageOf(person) {
  return Math.max(0, ...person.voiceprints.filter((one) => one.current_model).map((one) => one.percentage));
}

async function choose(name) {
  state.person = name;
  refresh();
  showRing(name && may("read") ? percentageOf(await api.person(name)) : 0);
}

async function listPeople() {
  if (!may("read")) return;
  const { speakers } = await api.people();
  const known = await Promise.all(speakers.slice(0, 50).map((name) => api.person(name)));
  if (!speakers.includes(state.person)) state.person = "";
  $("people").replaceChildren(...known.map(personItem));
  $("nobody").hidden = known.length > 0;
  await choose(state.person || (known.length === 1 ? known[0].id : ""));
  const chosen = document.querySelector(`input[name="person"][value="${CSS.escape(state.person)}"]`);
  if (chosen) chosen.checked = true;
}

function personItem(person) {
  const item = element("li");
  const radio = element("input");
  radio.type = "radio";
  radio.name = "person";
  radio.value = person.id;
  radio.id = `person-${person.id}`;
  radio.addEventListener("change", () => act(() => choose(person.id)));
  const label = element("label", person.id);
  label.htmlFor = radio.id;
  const percentage = Math.round(percentageOf(person));
  label.append(element("span", percentage ? `${percentage} % enrolled` : "not enrolled", "quiet"));
  const button = element("button", "Delete");
  button.type = "button";
  button.setAttribute("aria-label", `Delete ${person.id}`);
  button.disabled = !may("delete");
  button.addEventListener("click", () =>
    act(async () => {
      const receipt = await api.remove(person.id);
      showMessage("Deleted", `${person.id} is deleted: entry ${receipt.entry} of the audit trail.`);
      await listPeople();
    }),
  );
  item.append(radio, label, button);
  return item;
}

// Takes the bytes of an audio file as the recording.
async function take(buffer, name, type) {
  state.audio = buffer;
  URL.revokeObjectURL(state.address);
  state.address = URL.createObjectURL(new Blob([buffer], { type }));
  $("player").src = state.address;
  $("recording-name").textContent = name;
  $("recording").hidden = false;
  const canvas = $("spectrogram");
  try {
    const context = new OfflineAudioContext(1, 1, 16000);
    const decoded = await context.decodeAudioData(buffer.slice(0));
    canvas.hidden = false;
    draw(canvas, decoded.getChannelData(0), decoded.sampleRate);
    canvas.setAttribute("aria-label", `Spectrogram of ${name}, ${decoded.duration.toFixed(1)} seconds`);
  } catch {
    canvas.hidden = true; // the service may read what the browser does not
  }
  refresh();
}

function heard(seconds, level, clipped) {
  const shown = Math.max(-60, Math.min(0, level));
  $("level").setAttribute("aria-valuenow", shown.toFixed(0));
  $("level").classList.toggle("loud", clipped);
  $("level-bar").style.width = `${(100 * (shown + 60)) / 60}%`;
  $("record").textContent = `Stop (${seconds.toFixed(0)} s)`;
  if (seconds >= LONGEST) stopRecording();
}

async function startRecording() {
  const recorder = new Recorder(heard);
  try {
    await recorder.start();
  } catch (error) {
    status(error.message);
    return;
  }
  state.recorder = recorder;
  $("record").setAttribute("aria-pressed", "true");
  $("record").textContent = "Stop";
  status("Recording. Speak normally.");
  refresh();
}

async function stopRecording() {
  const recorder = state.recorder;
  if (!recorder) return;
  state.recorder = null;
  const { wave, rate } = await recorder.stop();
  $("record").setAttribute("aria-pressed", "false");
  $("record").textContent = "Record";
  $("level-bar").style.width = "0";
  const seconds = wave.length / rate;
  if (seconds < SHORTEST) {
    status("That was too short.");
    refresh();
    return;
  }
  status(`Recorded ${seconds.toFixed(1)} seconds.`);
  await take(wavFile(wave, rate), "Recording from the microphone", "audio/wav");
}

async function takeFile(file) {
  if (!file) return;
  if (file.size > state.about.max_bytes) {
    status(`${file.name} is too large.`);
    return;
  }
  await take(await file.arrayBuffer(), file.name, file.type);
  status(`${file.name} is ready.`);
}

async function begin() {
  await act(async () => {
    state.about = await api.about();
    $("key-form").hidden = true;
    const kind = state.about.detects ? "" : " It cannot tell spoofs from real speech.";
    $("model").textContent = `Model: ${state.about.encoder}, ${state.about.model.slice(0, 8)}.${kind}`;
    await listPeople();
  });
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  api.keepKey($("key").value.trim());
  $("key").value = "";
  begin();
});

$("person-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("person").value.trim();
  act(async () => {
    await api.add(name);
    $("person").value = "";
    state.person = name;
    await listPeople();
  });
});

$("record").addEventListener("click", () => (state.recorder ? stopRecording() : startRecording()));
$("file").addEventListener("change", (event) => {
  takeFile(event.target.files[0]);
  event.target.value = "";
});

const drop = $("drop");
drop.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  takeFile(event.dataTransfer.files[0]);
});

$("enrol").addEventListener("click", () =>
  act(async () => {
    const answer = await api.enrol(state.person, state.audio);
    await listPeople();
    showEnrolment(answer);
  }),
);
$("verify").addEventListener("click", () =>
  act(async () => showDecision(state.person, await api.verify(state.person, state.audio))),
);
$("identify").addEventListener("click", () => act(async () => showCandidates(await api.identify(state.audio))));
$("copy").addEventListener("click", () =>
  act(async () => {
    await take(await api.copy(state.audio), "Synthetic copy by the vocoder WORLD", "audio/wav");
    showMessage("Copied", "The recording is now a synthetic copy of the voice. Listen to it, then verify it.");
  }),
);

begin();
