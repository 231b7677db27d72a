/** A chart as a picture of its own: title, legend and background included, nothing left to a style sheet. */
import type { LevelMark } from '../series/marks.ts';
import { canvasAsSvg } from './canvas-marks.tsx';
import { type Glyph, shapePath } from './mark.tsx';

export interface PictureFrame {
  readonly title: string;
  readonly legend: readonly {
    readonly label: string;
    readonly mark?: LevelMark;
    readonly glyph?: Glyph;
    readonly dash?: string | undefined;
  }[];
}

const inherited = [
  'fill',
  'fill-opacity',
  'stroke',
  'stroke-width',
  'stroke-dasharray',
  'stroke-opacity',
  'opacity',
  'font-family',
  'font-size',
  'font-weight',
  'text-anchor',
];
const margin = 16;
const titleHeight = 28;
const legendRowHeight = 20;
const characterWidth = 6.6;
const svgNamespace = 'http://www.w3.org/2000/svg';

/** @param area holds the drawings of the chart, each where it is to stand; marks on a canvas become paths */
export function toSvg(area: HTMLElement, { title, legend }: PictureFrame): string {
  const style = getComputedStyle(document.documentElement);
  const colour = (value: string): string => {
    const name = /^var\((.+)\)$/.exec(value)?.[1];
    return name ? style.getPropertyValue(name).trim() : value;
  };
  const { left, top, width, height: seen } = area.getBoundingClientRect();
  const drawings = [
    ...area.querySelectorAll<SVGSVGElement | HTMLCanvasElement>('svg:not(svg svg, [data-overlay], button svg), canvas'),
  ].map((chart) => {
    const place = chart.getBoundingClientRect();
    return { chart, x: place.left - left, y: place.top - top + scrolledAway(chart, area), height: place.height };
  });
  const height = Math.max(seen, ...drawings.map((drawing) => drawing.y + drawing.height));
  const rows = legendRows(legend, width);
  const picture = document.createElementNS(svgNamespace, 'svg');
  const full = { width: width + 2 * margin, height: height + titleHeight + rows.length * legendRowHeight + 2 * margin };
  picture.setAttribute('xmlns', svgNamespace);
  picture.setAttribute('width', String(full.width));
  picture.setAttribute('height', String(full.height));
  picture.setAttribute('viewBox', `0 0 ${full.width} ${full.height}`);
  picture.setAttribute('font-family', 'system-ui, sans-serif');

  const add = (name: string, attributes: Record<string, string | number>, text?: string): void => {
    const element = document.createElementNS(svgNamespace, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
    if (text !== undefined) element.textContent = text;
    picture.append(element);
  };
  add('rect', { width: full.width, height: full.height, fill: colour('var(--app-panel)') });
  const ink = colour('var(--app-text)');
  add('text', { x: margin, y: margin + 14, fill: ink, 'font-size': 15, 'font-weight': 600 }, title);
  for (const { chart, x, y } of drawings) {
    const inner = chart instanceof SVGSVGElement ? frozenCopy(chart) : copyOfCanvas(chart);
    inner.setAttribute('x', String(margin + x));
    inner.setAttribute('y', String(margin + titleHeight + y));
    picture.append(inner);
  }
  for (const [row, items] of rows.entries()) {
    const y = margin + titleHeight + height + (row + 0.7) * legendRowHeight;
    for (const { x, label, mark, glyph, dash } of items) {
      if (mark)
        add('path', {
          d: shapePath(mark.shape, 4.6),
          fill: colour(mark.colour),
          transform: `translate(${margin + x + 6} ${y - 4})`,
        });
      else if (glyph)
        add('path', {
          d: glyph.d,
          fill: colour(glyph.fill),
          stroke: colour(glyph.stroke),
          'stroke-width': 2,
          transform: `translate(${margin + x + 6} ${y - 4})`,
        });
      else
        add('path', {
          d: `M${margin + x} ${y - 4}h24`,
          stroke: ink,
          'stroke-width': 2,
          'stroke-dasharray': dash ?? 'none',
        });
      add('text', { x: margin + x + (mark || glyph ? 16 : 30), y, fill: ink, 'font-size': 12 }, label);
    }
  }
  return new XMLSerializer().serializeToString(picture);
}

/** Pixels by which a drawing has been scrolled within the area. */
function scrolledAway(drawing: Element, area: HTMLElement): number {
  let pixels = 0;
  for (let at = drawing.parentElement; at && at !== area; at = at.parentElement) pixels += at.scrollTop;
  return pixels;
}

function legendRows(legend: PictureFrame['legend'], width: number) {
  type Item = PictureFrame['legend'][number] & { readonly x: number };
  const rows: Item[][] = [];
  let x = 0;
  for (const item of legend) {
    const needs = (item.mark || item.glyph ? 30 : 44) + item.label.length * characterWidth;
    if (rows.length === 0 || x + needs > width) {
      rows.push([]);
      x = 0;
    }
    rows[rows.length - 1].push({ ...item, x });
    x += needs;
  }
  return rows;
}

function copyOfCanvas(canvas: HTMLCanvasElement): SVGSVGElement {
  const { width, height } = canvas.getBoundingClientRect();
  const copy = document.createElementNS(svgNamespace, 'svg');
  copy.setAttribute('width', String(width));
  copy.setAttribute('height', String(height));
  copy.innerHTML = canvasAsSvg(canvas);
  return copy;
}

/** A copy that looks the same without this page's style sheets. */
function frozenCopy(chart: SVGSVGElement): SVGSVGElement {
  const copy = chart.cloneNode(true) as SVGSVGElement;
  const originals = [chart, ...chart.querySelectorAll('*')];
  const copies = [copy, ...copy.querySelectorAll('*')];
  for (const [i, original] of originals.entries()) {
    const style = getComputedStyle(original);
    for (const attribute of [...copies[i].attributes]) {
      // Ids stay: clip paths are found by them.
      if (/^(class|style|tabindex|role|aria-.*|data-.*)$/.test(attribute.name))
        copies[i].removeAttribute(attribute.name);
    }
    for (const property of inherited) {
      const value = style.getPropertyValue(property);
      if (value) copies[i].setAttribute(property, value);
    }
  }
  return copy;
}

const pngScale = 2;

export async function toPng(svg: string): Promise<Blob> {
  const url = URL.createObjectURL(new Blob([svg], { type: 'image/svg+xml' }));
  try {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = document.createElement('canvas');
    canvas.width = Math.round(image.width * pngScale);
    canvas.height = Math.round(image.height * pngScale);
    canvas.getContext('2d')?.drawImage(image, 0, 0, canvas.width, canvas.height);
    return await new Promise((resolve, reject) =>
      canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error('the picture is too large'))), 'image/png'),
    );
  } finally {
    URL.revokeObjectURL(url);
  }
}

export function download(name: string, content: Blob): void {
  const url = URL.createObjectURL(content);
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  // The browser takes its own hold of the content when the download begins.
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
