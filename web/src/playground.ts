import { element } from "./element";
import { Frame } from "./frame";
import { Knobs } from "./knobs";
import { Live, type Sent } from "./live";
import type { RealtimeResult } from "./messages";
import { fileName, type Picture, toPicture } from "./picture";
import { Readout } from "./readout";
import { Recent } from "./recent";
import { anyScene, phrase } from "./scene";
import { Words } from "./words";

/** A picture that stands this long was looked at: it goes to the strip and a screen reader hears of it. */
const SETTLED_MS = 900;
/** The browser says no more than that it cannot decode the bytes. */
const UNREADABLE = "The picture that came cannot be shown.";

/** The page: prompt and knobs in, pictures out. */
export class Playground {
  readonly #prompt = element("prompt", HTMLTextAreaElement);
  readonly #download = element("download", HTMLAnchorElement);
  readonly #frame = new Frame(element("picture", HTMLElement), element("glow", HTMLCanvasElement));
  readonly #recent = new Recent(element("recent", HTMLElement), (picture) => this.#goBackTo(picture));
  readonly #readout = new Readout(() => this.#connect());
  readonly #knobs = new Knobs(() => this.#ask());
  readonly #words = new Words(element("words", HTMLElement), this.#prompt, () => this.#ask());
  readonly #live: Live;
  #settled: ReturnType<typeof setTimeout> | undefined;

  constructor(page: HTMLElement) {
    this.#live = new Live({
      app: page.dataset.app!,
      runnerUrl: page.dataset.runnerUrl!,
      tokenSeconds: Number(page.dataset.tokenSeconds),
      onResult: (result, sent) => this.#show(result, sent).catch(() => this.#readout.problem(UNREADABLE)),
      onState: (state) => this.#readout.connection(state),
      onProblem: (words) => this.#readout.problem(words),
    });
    this.#prompt.addEventListener("input", () => this.#ask());
    for (const chip of document.querySelectorAll<HTMLButtonElement>("#examples button[value]")) {
      chip.addEventListener("click", () => this.#say(chip.value));
    }
    element("surprise", HTMLButtonElement).addEventListener("click", () => this.#say(phrase(anyScene(Math.random))));
    this.#ask();
  }

  #say(prompt: string): void {
    this.#prompt.value = prompt;
    this.#ask();
  }

  /** Ask for a picture of what stands on the page now. */
  #ask(): void {
    this.#words.reflect();
    const prompt = this.#prompt.value.trim();
    if (prompt === "") return;
    this.#live.send({ prompt, ...this.#knobs.read() });
  }

  #connect(): void {
    this.#prompt.focus(); // the button that was pressed goes away
    this.#live.again();
  }

  async #show(result: RealtimeResult, { order, input, at }: Sent): Promise<void> {
    const picture = toPicture(result, input);
    if (!picture || !(await this.#display(picture, order))) return;
    this.#readout.figures(performance.now() - at, engineMs(result), result.dropped_inputs);
    clearTimeout(this.#settled);
    this.#settled = setTimeout(() => this.#keep(picture), SETTLED_MS);
  }

  /** Put `picture` into the frame; false when a newer one was there. */
  async #display(picture: Picture, order: number): Promise<boolean> {
    const gone = await this.#frame.show(picture, order);
    this.#release(gone);
    if (gone === picture) return false;
    this.#download.href = picture.url;
    this.#download.download = fileName(picture);
    this.#download.hidden = false;
    return true;
  }

  #keep(picture: Picture): void {
    this.#release(this.#recent.add(picture));
    this.#readout.announce(`Picture of ${picture.input.prompt}`);
  }

  /** Show a picture of the strip again, with the words and settings that made it. */
  #goBackTo(picture: Picture): void {
    clearTimeout(this.#settled);
    this.#prompt.value = picture.input.prompt;
    this.#knobs.restore(picture.input, picture.seed);
    this.#words.reflect();
    void this.#display(picture, this.#live.pass());
  }

  #release(picture: Picture | undefined): void {
    const isNeeded = picture && (picture === this.#frame.current || this.#recent.has(picture));
    if (picture && !isNeeded) URL.revokeObjectURL(picture.url);
  }
}

/** Milliseconds in the engine, all stages; waiting for its turn is not work. */
function engineMs({ timings }: RealtimeResult): number {
  const stages = Object.entries(timings).filter(([stage]) => stage !== "queue");
  return 1000 * stages.reduce((sum, [, seconds]) => sum + seconds, 0);
}
