import type { RealtimeInput, RealtimeResult } from "./messages";

/** A result as the page keeps it. */
export interface Picture {
  url: string;
  width: number;
  height: number;
  seed: number;
  contentType: string;
  input: RealtimeInput;
}

/** The first image of `result`, which `input` asked for; undefined when it has none. */
export function toPicture(result: RealtimeResult, input: RealtimeInput): Picture | undefined {
  const image = result.images[0];
  if (!image) return undefined;
  const blob = new Blob([image.content as Uint8Array<ArrayBuffer>], { type: image.content_type });
  return {
    url: URL.createObjectURL(blob),
    width: image.width,
    height: image.height,
    seed: result.seed,
    contentType: image.content_type,
    input,
  };
}

/** A name to save it under: the prompt's first words and the seed. */
export function fileName({ input, seed, contentType }: Picture): string {
  const words = input.prompt.toLowerCase().match(/[a-z0-9]+/g) ?? ["picture"];
  const ending = contentType === "image/png" ? "png" : "jpg";
  return `${words.slice(0, 8).join("-")}-${seed}.${ending}`;
}

/** Lets a number pass only when it is greater than every one before: a result must not cover a newer one. */
export class NewestOnly {
  #newest = 0;

  /** Whether `order` is newer than what is shown, which it then becomes. */
  admit(order: number): boolean {
    if (order <= this.#newest) return false;
    this.#newest = order;
    return true;
  }
}
