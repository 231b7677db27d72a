/** Sizes as people write them. */
const units: Readonly<Record<string, number>> = {
  ...{ B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 },
  ...{ KB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12 },
};

/** `80GiB`, `24 GB`, `512MiB`; undefined for anything else, a figure without its unit included. */
export function parseBytes(text: string): number | undefined {
  const [, figure, unit] = /^(\d+(?:\.\d+)?)\s*([A-Za-z]+)$/.exec(text.trim()) ?? [];
  const bytes = Number(figure) * (units[unit as string] ?? Number.NaN);
  return bytes >= 0 && bytes <= 2 ** 50 ? Math.floor(bytes) : undefined;
}
