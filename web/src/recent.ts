import type { Picture } from "./picture";

const MAX_PICTURES = 12;

/** The strip of pictures that were looked at, newest first. */
export class Recent {
  readonly #list: HTMLElement;
  readonly #onPick: (picture: Picture) => void;
  #pictures: Picture[] = [];

  constructor(list: HTMLElement, onPick: (picture: Picture) => void) {
    this.#list = list;
    this.#onPick = onPick;
  }

  /** Whether the strip still needs the picture's URL. */
  has(picture: Picture): boolean {
    return this.#pictures.includes(picture);
  }

  /** Put `picture` first; returns the one that fell off the end. */
  add(picture: Picture): Picture | undefined {
    if (this.has(picture)) return undefined;
    this.#pictures.unshift(picture);
    this.#list.prepend(this.#item(picture));
    if (this.#pictures.length <= MAX_PICTURES) return undefined;
    this.#list.lastElementChild?.remove();
    return this.#pictures.pop();
  }

  #item(picture: Picture): HTMLLIElement {
    const image = new Image(72, 72);
    image.src = picture.url;
    image.alt = "";
    const button = document.createElement("button");
    button.type = "button";
    button.title = picture.input.prompt;
    button.setAttribute("aria-label", `Back to: ${picture.input.prompt}`);
    button.append(image);
    button.addEventListener("click", () => this.#onPick(picture));
    const item = document.createElement("li");
    item.append(button);
    return item;
  }
}
