// Records from the microphone, untouched by the browser's own noise suppression.

const CONSTRAINTS = {
  audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
};

export class Recorder {
  // heard(seconds, level in dB, clipped) is called with each piece.
  constructor(heard) {
    this.heard = heard;
    this.pieces = [];
    this.samples = 0;
    this.done = false;
  }

  async start() {
    if (!navigator.mediaDevices) {
      throw new Error("The browser gives the microphone to pages at localhost or with https alone.");
    }
    try {
      this.stream = await navigator.mediaDevices.getUserMedia(CONSTRAINTS);
    } catch (error) {
      const why = error.name === "NotAllowedError" ? "was not allowed" : `cannot be used (${error.message || error.name})`;
      throw new Error(`The microphone ${why}.`);
    }
    this.context = new AudioContext();
    await this.context.audioWorklet.addModule("/static/worklet.js");
    const source = this.context.createMediaStreamSource(this.stream);
    const tap = new AudioWorkletNode(this.context, "tap", { numberOfOutputs: 0 });
    tap.port.onmessage = (event) => this.take(event.data);
    source.connect(tap);
    await this.context.resume();
  }

  take(piece) {
    if (this.done) return; // sent before the microphone was stopped
    this.pieces.push(piece);
    this.samples += piece.length;
    let power = 0;
    let peak = 0;
    for (const value of piece) {
      power += value * value;
      peak = Math.max(peak, Math.abs(value));
    }
    const level = 10 * Math.log10(power / piece.length + 1e-12);
    this.heard(this.samples / this.context.sampleRate, level, peak > 0.99);
  }

  async stop() {
    this.done = true;
    for (const track of this.stream.getTracks()) track.stop();
    const rate = this.context.sampleRate;
    await this.context.close();
    const wave = new Float32Array(this.samples);
    let at = 0;
    for (const piece of this.pieces) {
      wave.set(piece, at);
      at += piece.length;
    }
    return { wave, rate };
  }
}

// A WAV file of 16-bit integers.
export function wavFile(wave, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * wave.length));
  const text = (at, word) => [...word].forEach((letter, index) => view.setUint8(at + index, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * wave.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * wave.length, true);
  wave.forEach((value, index) => {
    const sample = Math.max(-32768, Math.min(32767, Math.round(32768 * value)));
    view.setInt16(44 + 2 * index, sample, true);
  });
  return view.buffer;
}
