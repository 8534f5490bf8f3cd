/** What goes to the runner and comes back, as far as this page reads it. */

/** A field left out takes the served model's own default. */
export interface RealtimeInput {
  prompt: string;
  seed?: number;
  num_inference_steps?: number;
  guidance_scale?: number;
}

export interface RealtimeResult {
  images: { content: Uint8Array; content_type: string; width: number; height: number }[];
  /** Seconds a stage. */
  timings: Record<string, number>;
  seed: number;
  /** Inputs that newer ones replaced since the previous result. */
  dropped_inputs: number;
}

/** A control message that ends or refuses something. */
export interface RealtimeError {
  type: "x-fal-error";
  error: string;
  reason: string;
  detail?: { loc: (string | number)[]; msg: string }[] | null;
  request_id?: string | null;
  error_id?: string | null;
}

const FIELDS: Record<string, string> = {
  prompt: "Prompt",
  seed: "Seed",
  num_inference_steps: "Steps",
  guidance_scale: "Guidance",
};

/** The error in words for people: which field to mend, or what happened. */
export function explain(error: RealtimeError): string {
  if (error.error === "VALIDATION_ERROR" && error.detail?.length) {
    return error.detail.map(({ loc, msg }) => `${fieldName(loc)}: ${lowerFirst(msg)}.`).join(" ");
  }
  if (error.error === "INTERNAL_ERROR") {
    const id = error.error_id ? ` The log has it as ${error.error_id}.` : "";
    return `The engine failed on this picture.${id}`;
  }
  return error.reason;
}

function fieldName(loc: (string | number)[]): string {
  const name = String(loc.at(-1) ?? "Input");
  return FIELDS[name] ?? name;
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1).replace(/\.$/, "");
}
