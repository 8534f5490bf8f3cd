import { NewestOnly, type Picture } from "./picture";

/** The glow is the picture itself, drawn this small and stretched: a blur that costs nothing. */
const GLOW_PIXELS = 5;

/** The picture area: a box of fixed shape in which a decoded picture replaces the one before, never an older one. */
export class Frame {
  readonly #box: HTMLElement;
  readonly #glow: HTMLCanvasElement;
  readonly #order = new NewestOnly();
  current: Picture | undefined;

  constructor(box: HTMLElement, glow: HTMLCanvasElement) {
    this.#box = box;
    this.#glow = glow;
    glow.width = glow.height = GLOW_PIXELS;
  }

  /**
   * Show `picture` unless a newer one is there.
   *
   * @returns The picture that is out of sight now: the one before, or `picture` itself.
   */
  async show(picture: Picture, order: number): Promise<Picture | undefined> {
    const image = new Image(picture.width, picture.height);
    image.src = picture.url;
    image.alt = picture.input.prompt;
    await image.decode(); // so that the swap below paints at once, without a blank frame
    if (!this.#order.admit(order)) return picture;
    const before = this.current;
    this.current = picture;
    this.#box.replaceChildren(image);
    this.#light(image);
    return before;
  }

  #light(image: HTMLImageElement): void {
    const context = this.#glow.getContext("2d");
    context?.drawImage(image, 0, 0, GLOW_PIXELS, GLOW_PIXELS);
  }
}
