// Draws the spectrogram of a recording, from 0 to 8 kHz.

const SIZE = 512;
const HIGHEST = 8000;
const DEEPEST = 70; // dB below the strongest value that are still shown

// Dark to light, also for eyes that do not tell red from green.
const COLOURS = [
  [0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164],
];

export function draw(canvas, wave, rate) {
  const columns = canvas.width;
  const bins = Math.min(SIZE / 2, Math.floor((HIGHEST * SIZE) / rate));
  const powers = new Float32Array(columns * bins);
  let strongest = 1e-9;
  const step = Math.max(1, (wave.length - SIZE) / columns);
  for (let column = 0; column < columns; column++) {
    const power = spectrum(wave, Math.round(column * step));
    for (let bin = 0; bin < bins; bin++) {
      powers[column * bins + bin] = power[bin];
      strongest = Math.max(strongest, power[bin]);
    }
  }
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, canvas.height);
  for (let column = 0; column < columns; column++) {
    for (let line = 0; line < canvas.height; line++) {
      const bin = Math.floor(((canvas.height - 1 - line) / canvas.height) * bins);
      const level = 10 * Math.log10(powers[column * bins + bin] / strongest + 1e-12);
      const [red, green, blue] = colour(1 + level / DEEPEST);
      image.data.set([red, green, blue, 255], 4 * (line * columns + column));
    }
  }
  context.putImageData(image, 0, 0);
}

function colour(share) {
  const place = Math.max(0, Math.min(1, share)) * (COLOURS.length - 1);
  const below = Math.min(COLOURS.length - 2, Math.floor(place));
  return COLOURS[below].map((value, index) => value + (place - below) * (COLOURS[below + 1][index] - value));
}

// The power spectrum of SIZE samples, with a Hann window.
function spectrum(wave, start) {
  const real = new Float64Array(SIZE);
  const imaginary = new Float64Array(SIZE);
  for (let index = 0; index < SIZE; index++) {
    const hann = 0.5 - 0.5 * Math.cos((2 * Math.PI * index) / SIZE);
    real[reversed(index)] = hann * (wave[start + index] || 0);
  }
  for (let half = 1; half < SIZE; half *= 2) {
    for (let first = 0; first < SIZE; first += 2 * half) {
      for (let index = 0; index < half; index++) {
        const angle = (-Math.PI * index) / half;
        const cosine = Math.cos(angle);
        const sine = Math.sin(angle);
        const upper = first + index;
        const lower = upper + half;
        const x = real[lower] * cosine - imaginary[lower] * sine;
        const y = real[lower] * sine + imaginary[lower] * cosine;
        real[lower] = real[upper] - x;
        imaginary[lower] = imaginary[upper] - y;
        real[upper] += x;
        imaginary[upper] += y;
      }
    }
  }
  return real.map((value, index) => value * value + imaginary[index] * imaginary[index]);
}

const BITS = Math.log2(SIZE);

function reversed(index) {
  let found = 0;
  for (let bit = 0; bit < BITS; bit++) found |= ((index >> bit) & 1) << (BITS - 1 - bit);
  return found;
}
