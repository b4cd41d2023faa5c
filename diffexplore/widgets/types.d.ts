// The types that viewer.js names in its comments. For `tsc` and
// for editors; no browser ever asks for this file.

/** A picture as it came: `asked` once it is being decoded, `bitmap` once it is. */
interface Shot {
  bytes: Uint8Array;
  format: string;
  exact: boolean;
  bitmap: ImageBitmap | null;
  asked: boolean;
}

/** A picture, why there is none, or not there yet. */
type Slot = Shot | string | null;

/** The numbers of one evaluation, see film.py. */
type Numbers = [
  timestep: number | null,
  sigma: number | null,
  seconds: number | null,
  change?: number | null,
  power?: (number | null)[],
  adherence?: number | null,
];

/** What earlier runs left on show. */
interface Ghost {
  count: number;
  frames: Record<string, Slot[]>;
  final: Shot | null;
}

interface Film {
  label: string;
  status: string;
  expected: number;
  seconds: number;
  size: [number, number];
  about: Record<string, string | number>;
  tokens?: [text: string, matter: string][];
  steps: Numbers[];
  frames: Record<string, Slot[]>;
  final: Shot | null;
  previous: Ghost | null;
}

/** The part of every picture on show: how much enlarged, and its corner as a share of the whole. */
interface Zoom {
  scale: number;
  left: number;
  top: number;
}

/** The parts of the page that belong to one film. */
interface Panel {
  figure: HTMLElement;
  canvas: HTMLCanvasElement;
  why: HTMLElement;
  label: HTMLElement;
  strip: HTMLCanvasElement;
  spectrum: HTMLElement;
  bars: HTMLElement;
}

/** What anywidget hands over. */
interface Model {
  get(name: string): any;
  send(content: any): void;
  on(name: string, f: (...args: any[]) => void): void;
  off(name: string, f: (...args: any[]) => void): void;
}
