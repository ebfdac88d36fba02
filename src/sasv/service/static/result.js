// Says in words what the service decided, and why.

const $ = (id) => document.getElementById(id);

const WORDS = {
  accept: ["accept", "Accepted", (name) => `This is ${name}, and it is real speech.`],
  reject_speaker: ["reject", "Rejected: somebody else", (name) => `The speech is not that of ${name}.`],
  reject_spoof: [
    "reject",
    "Rejected: not real speech",
    (name) => `This sounds synthetic, converted, or copied, even if it sounds like ${name}.`,
  ],
  reject: ["reject", "Rejected", (name) => `This is not accepted as real speech of ${name}.`],
  inconclusive: ["inconclusive", "No decision", () => "The recording does not allow a decision, so nobody is accepted."],
};

// Why a recording could not be used, in the words of somebody who is going to record again.
const ADVICE = {
  no_speech: "No speech was found in it. Speak towards the microphone.",
  too_little_speech: "There is too little speech in it. Speak for three seconds or more.",
  too_little_enrolment_speech: "Too little speech is enrolled yet. Add another recording.",
  too_quiet: "It is too quiet. Come closer to the microphone, or raise its level.",
  too_noisy: "It is too noisy. Find a quieter place.",
  clipped: "It is overdriven. Lower the level of the microphone, or step back.",
  narrow_band: "Its high frequencies are missing, as on an old telephone line.",
  more_than_one_speaker: "More than one person speaks.",
  unfamiliar_recording: "It is unlike the recordings that the model was calibrated on.",
  quiet_recording: "It is very quiet, so scores are lower.",
  inconsistent_enrolment: "A recording of the enrolment is unlike the others. Is it the same person?",
};
const PLAIN = ["above_threshold", "below_threshold"];

const FACTS = {
  net_speech: ["Speech", (value) => `${value.toFixed(1)} s`],
  level_dbfs: ["Level", (value) => `${value.toFixed(0)} dBFS`],
  snr_db: ["Signal to noise", (value) => `${value.toFixed(0)} dB`],
  clipped_share: ["Clipped", (value) => `${(100 * value).toFixed(1)} %`],
  bandwidth_hz: ["Bandwidth", (value) => `${(value / 1000).toFixed(1)} kHz`],
};

function show(kind, title, text, { reasons = [], recording = null, bars = [], candidates = [] } = {}) {
  const card = $("result-card");
  card.className = `card ${kind}`;
  card.hidden = false;
  $("outcome").textContent = title;
  $("explanation").textContent = text;
  $("bars").replaceChildren(...bars);
  const wrong = reasons.filter((reason) => !PLAIN.includes(reason.code));
  fill($("wrong-list"), "li", wrong.map((reason) => ADVICE[reason.code] || reason.text));
  $("wrong").hidden = !wrong.length;
  fill($("candidate-list"), "li", candidates);
  $("candidates").hidden = !candidates.length;
  const facts = Object.entries(FACTS).filter(([name]) => recording && recording[name] !== null);
  $("fact-list").replaceChildren(
    ...facts.flatMap(([name, [label, format]]) => [element("dt", label), element("dd", format(recording[name]))]),
  );
  $("facts").hidden = !facts.length;
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "nearest" });
}

export function showDecision(name, decision) {
  const [kind, title, text] = WORDS[decision.outcome];
  show(kind, title, text(name), {
    reasons: decision.reasons,
    recording: decision.recording,
    bars: barsOf(decision),
  });
}

export function showCandidates(answer) {
  if (!answer.candidates.length) {
    show("inconclusive", "No decision", "The recording was compared with nobody.", answer);
    return;
  }
  const first = answer.candidates[0];
  const [kind, title, text] = WORDS[first.outcome];
  show(kind, first.outcome === "accept" ? `It is ${first.speaker}` : `${title}, most like ${first.speaker}`, text(first.speaker), {
    ...answer,
    bars: barsOf(first),
    candidates: answer.candidates.map((one) => `${one.speaker}: ${WORDS[one.outcome][1]} (score ${one.score.toFixed(2)})`),
  });
}

export function showEnrolment(answer) {
  const { percentage, net_speech: seconds } = answer.voiceprint;
  const more = percentage < 100 ? "Another recording makes it better." : "The enrolment is complete.";
  show("accept", "Enrolled", `${answer.speaker} has ${seconds.toFixed(1)} s of speech. ${more}`, answer);
}

export function showMessage(title, text) {
  show("accept", title, text);
}

export function showProblem(problem) {
  const reasons = problem.body?.reasons || [];
  const title = reasons.length ? "The recording cannot be used" : problem.body?.title || "That did not work";
  const text = reasons.length ? "Record again." : problem.message;
  show("inconclusive", title, text, { reasons, recording: problem.body?.recording });
}

function barsOf(decision) {
  const bars = [];
  if (decision.llr != null) {
    bars.push(bar("Accept or reject", decision.llr, decision.llr_threshold, "log-likelihood ratio"));
    if (decision.speaker_llr != null) {
      bars.push(evidence("Is it this speaker?", decision.speaker_llr));
      bars.push(evidence("Is it real speech?", decision.spoof_llr));
    }
  } else if (decision.score != null && decision.threshold != null) {
    bars.push(bar("Accept or reject", decision.score, decision.threshold, "score", 1));
  }
  return bars;
}

// What one question adds to the decision; nothing is decided by it alone.
function evidence(label, value) {
  return bar(label, value, 0, "log-likelihood ratio", 6, (above) => (above ? "speaks for it" : "speaks against it"));
}

function verdict(above, threshold) {
  return `${above ? "reaches" : "below"} the ${threshold.toFixed(2)} needed`;
}

// A bar from no to yes; far away values come closer and closer to the ends.
function bar(label, value, threshold, what, scale = 6, words = verdict) {
  const share = (number) => 50 + 50 * Math.tanh(number / scale);
  const above = value >= threshold;
  const found = element("div", "", `bar ${above ? "above" : ""}`);
  const head = element("div", "", "bar-head");
  head.append(
    element("span", label),
    element("span", `${value.toFixed(2)}, ${words(above, threshold)}`, "quiet"),
  );
  const track = element("div", "", "bar-track");
  track.setAttribute("role", "meter");
  track.setAttribute("aria-label", `${label} ${what}`);
  track.setAttribute("aria-valuemin", "0");
  track.setAttribute("aria-valuemax", "100");
  track.setAttribute("aria-valuenow", share(value).toFixed(0));
  track.setAttribute("aria-valuetext", `${value.toFixed(2)}, ${words(above, threshold)}`);
  const filled = element("div", "", "bar-fill");
  filled.style.width = `${share(value)}%`;
  const mark = element("div", "", "bar-mark");
  mark.style.left = `${share(threshold)}%`;
  track.append(filled, mark);
  found.append(head, track);
  return found;
}

export function element(name, text = "", kind = "") {
  const found = document.createElement(name);
  found.textContent = text;
  if (kind) found.className = kind;
  return found;
}

function fill(list, name, texts) {
  list.replaceChildren(...texts.map((text) => element(name, text)));
}
