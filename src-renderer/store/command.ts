/** A sweep as the command that runs it: what the window copies, the command line reads back as the same sweep. Pure. */
import type { Point } from '../../src-main/contract/metrics.ts';
import type { AxisValue, Measuring, Sweep } from '../../src-main/contract/sweep.ts';
import { parseValues } from '../../src-main/contract/values.ts';

const program = 'npm run -s fastmqa -- sweep';

/** Field of a sweep's measuring → the option that sets it. */
const measuringOptions: Readonly<Record<keyof Measuring, string>> = {
  minSeconds: '--min-time',
  maxSeconds: '--max-time',
  maxNoise: '--max-noise',
  minSamples: '--min-samples',
  maxSamples: '--max-samples',
  timeoutSeconds: '--timeout',
};

/** For a POSIX shell. Grids that options cannot say are given whole, as JSON on stdin. */
export function commandOf(sweep: Sweep): string {
  const options = optionsOf(sweep);
  if (options) return [program, ...options.map(quoted)].join(' ');
  return `${program} - <<'SWEEP'\n${JSON.stringify(sweep, undefined, 2)}\nSWEEP`;
}

function optionsOf({ name, axes, zip, also, measuring = {} }: Sweep): string[] | undefined {
  const names = Object.keys(axes);
  // Without a level or a phase the command line would choose its own; levels it puts last.
  const isPlain = !zip && !also && names.includes('phase') && names.at(-1) === 'level';
  if (!isPlain || Object.values(axes).some((values) => !survives(values))) return undefined;
  return [
    ...['--name', name],
    ...Object.entries(axes).flatMap(([axis, values]) => ['--set', `${axis}=${valuesText(values)}`]),
    ...Object.entries(measuring).flatMap(([field, value]) => [
      measuringOptions[field as keyof Measuring],
      String(value),
    ]),
  ];
}

/** Values as a user would type them. */
const valuesText = (values: readonly AxisValue[]): string => values.map(String).join(',');

/** Whether what is typed means the same values: a path with a comma does not. */
function survives(values: readonly AxisValue[]): boolean {
  try {
    const read = parseValues(valuesText(values));
    return read.length === values.length && read.every((value, i) => value === values[i]);
  } catch {
    return false;
  }
}

const quoted = (word: string): string =>
  /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`;

/** `quick look` → `quick-look.json` */
export const fileNameOf = ({ name }: Sweep): string =>
  `${name.replaceAll(/[^\p{L}\p{N}]+/gu, '-').replaceAll(/^-+|-+$/g, '') || 'sweep'}.json`;

/** One point as a sweep of its own: every field of it an axis of one value. */
export function sweepOfPoint({ config }: Pick<Point, 'config'>, measuring: Partial<Measuring> | undefined): Sweep {
  const { level, phase, ...fields } = config;
  const axes = Object.entries(fields).flatMap(([axis, value]) => (value === undefined ? [] : [[axis, [value]]]));
  return {
    name: `${level} ${phase} again`,
    axes: { ...(Object.fromEntries(axes) as Sweep['axes']), phase: [phase], level: [level] },
    ...(measuring && { measuring }),
  };
}
