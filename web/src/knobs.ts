import { element } from "./element";
import type { RealtimeInput } from "./messages";

/** Seeds that are drawn here; typed ones may be larger. */
const SEED_BOUND = 1_000_000;

type Settings = Omit<RealtimeInput, "prompt">;

/** Seed, steps and guidance. What stands at "auto" is not sent: the served model knows its own defaults. */
export class Knobs {
  readonly #seed = element("seed", HTMLInputElement);
  readonly #lock = element("lock", HTMLButtonElement);
  readonly #steps = element("steps", HTMLInputElement);
  readonly #guidance = element("guidance", HTMLInputElement);

  constructor(onChange: () => void) {
    this.#seed.value = drawSeed();
    this.#seed.addEventListener("input", () => {
      this.#setLocked(true);
      onChange();
    });
    this.#lock.addEventListener("click", () => this.#setLocked(!this.#isLocked));
    element("dice", HTMLButtonElement).addEventListener("click", () => {
      this.#seed.value = drawSeed();
      onChange();
    });
    for (const range of [this.#steps, this.#guidance]) {
      range.addEventListener("input", () => {
        label(range);
        onChange();
      });
      label(range);
    }
  }

  /** The settings for the next input; without a locked seed each picture gets a new one. */
  read(): Settings {
    const settings: Settings = {};
    if (!this.#isLocked) this.#seed.value = drawSeed();
    if (this.#seed.value !== "" && this.#seed.validity.valid) settings.seed = Number(this.#seed.value);
    if (this.#steps.value !== "0") settings.num_inference_steps = Number(this.#steps.value);
    if (this.#guidance.value !== "0") settings.guidance_scale = Number(this.#guidance.value);
    return settings;
  }

  /** Put the knobs where they stood for a picture that has `seed`. */
  restore(input: Settings, seed: number): void {
    this.#seed.value = String(seed);
    this.#setLocked(true);
    this.#steps.value = String(input.num_inference_steps ?? 0);
    this.#guidance.value = String(input.guidance_scale ?? 0);
    [this.#steps, this.#guidance].forEach(label);
  }

  get #isLocked(): boolean {
    return this.#lock.getAttribute("aria-pressed") === "true";
  }

  #setLocked(locked: boolean): void {
    this.#lock.setAttribute("aria-pressed", String(locked));
  }
}

function drawSeed(): string {
  return String(Math.floor(Math.random() * SEED_BOUND));
}

/** Say the value of `range` beside it and to screen readers; its lowest place is "auto". */
function label(range: HTMLInputElement): void {
  const words = range.value === "0" ? "auto" : range.value;
  range.setAttribute("aria-valuetext", words);
  element(`${range.id}-value`, HTMLOutputElement).value = words;
}
