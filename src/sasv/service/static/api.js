// Requests to the service. The API key stays in this tab.

const STORED = "sasv-key";

export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || `The service answered with status ${status}.`);
    this.status = status;
    this.code = body.code || "";
    this.body = body;
  }
}

export function keepKey(key) {
  sessionStorage.setItem(STORED, key);
}

async function asked(method, path, body, type) {
  const headers = {};
  const key = sessionStorage.getItem(STORED);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (type) headers["Content-Type"] = type;
  if (method === "POST") headers["Idempotency-Key"] = unique();
  let response;
  try {
    response = await fetch(path, { method, headers, body });
  } catch {
    throw new Problem(0, { detail: "The service cannot be reached." });
  }
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Problem(response.status, problem);
  }
  return response;
}

// crypto.randomUUID exists on secure origins alone.
function unique() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function json(...request) {
  return (await asked(...request)).json();
}

const speaker = (name) => `/v1/speakers/${encodeURIComponent(name)}`;

export const about = () => json("GET", "/v1/about");
export const people = () => json("GET", "/v1/speakers?limit=200");
export const person = (name) => json("GET", speaker(name));
export const remove = (name) => json("DELETE", speaker(name));
export const add = (name) =>
  json("POST", "/v1/speakers", JSON.stringify({ id: name, consent: "given on the page" }), "application/json");
export const enrol = (name, audio) => json("POST", `${speaker(name)}/enrolments`, audio, "application/octet-stream");
export const verify = (name, audio) =>
  json("POST", `/v1/verify?speaker=${encodeURIComponent(name)}`, audio, "application/octet-stream");
export const identify = (audio) => json("POST", "/v1/identify?top=5", audio, "application/octet-stream");
export const copy = async (audio) => (await asked("POST", "/v1/copy", audio, "application/octet-stream")).arrayBuffer();
