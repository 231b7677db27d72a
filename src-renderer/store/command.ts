/** A sweep as the command that measures the same points. Pure. */
import type { Point } from '../../src-main/contract/metrics.ts';
import { type Measuring, type Sweep, unsaid } from '../../src-main/contract/sweep.ts';

const program = 'npm run -s fastmqa --';
const flags = {
  minSeconds: '--min-time',
  maxSeconds: '--max-time',
  maxNoise: '--max-noise',
  timeoutSeconds: '--timeout',
};

/** For a POSIX shell. */
const quoted = (text: string): string => (/^[\w.,=/:@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);

/** @returns undefined where only a file can say it: axes that advance together, several grids, counts of samples */
export function commandOf({ axes, zip, also, measuring = {} }: Sweep): string | undefined {
  if (zip || also || Object.keys(measuring).some((name) => !(name in flags))) return undefined;
  const { level = [unsaid.level], ...others } = { phase: [unsaid.phase], ...axes };
  const sets = Object.entries({ ...others, level }).map(
    ([axis, values]) => `--set ${quoted(`${axis}=${values.join(',')}`)}`,
  );
  const limits = Object.entries(measuring).map(([name, value]) => `${flags[name as keyof typeof flags]} ${value}`);
  return [program, 'sweep', ...sets, ...limits].join(' ');
}

/** The command for a sweep that was exported. */
export const commandOfFile = (fileName: string): string => `${program} sweep ${quoted(fileName)}`;

/** `quick look` → `quick-look.json` */
export const fileNameOf = ({ name }: Sweep): string =>
  `${name.replaceAll(/[^\p{L}\p{N}]+/gu, '-').replaceAll(/^-+|-+$/g, '') || 'sweep'}.json`;

/** One point as a sweep of its own. */
export const sweepOfPoint = ({ config }: Pick<Point, 'config'>, measuring: Partial<Measuring> | undefined): Sweep => ({
  name: `${config.level} ${config.phase} again`,
  axes: Object.fromEntries(
    Object.entries(config).flatMap(([axis, value]) => (value === undefined ? [] : [[axis, [value]]])),
  ),
  ...(measuring && { measuring }),
});
