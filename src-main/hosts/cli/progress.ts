/** How far a sweep is: one line that renews itself in a terminal; elsewhere a line a point, if asked for. */
import type { RunEvent } from '../../contract/api.ts';
import { formatMetric, formatNumber, formatSeconds } from '../../contract/format.ts';
import type { Point } from '../../contract/metrics.ts';
import { say } from './output.ts';

/** Nothing elsewhere than in a terminal. */
export function showLine(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text.slice(0, (process.stderr.columns || 80) - 1)}`);
}

export const clearLine = (): void => showLine('');

export class Progress {
  private readonly verbose: boolean;
  private state = '';

  constructor(verbose: boolean) {
    this.verbose = verbose;
  }

  tell(event: RunEvent): void {
    if (event.type === 'started') this.state = `${event.done}/${event.total}`;
    if (event.type === 'point') {
      this.state = `${event.done}/${event.total}`;
      if (this.verbose) this.line(`${this.state}  ${describePoint(event.point)}`);
      showLine(`${this.state}  ${describePoint(event.point)}  ${etaOf(event.etaSeconds)}`);
      this.state += `  ${etaOf(event.etaSeconds)}`;
    }
    if (event.type === 'progress') {
      const step = event.step === 'sampling' ? `${event.samples} samples` : 'building, checking against the reference';
      showLine(`${this.state}  ${step}`);
    }
    if (event.type === 'ended') clearLine();
  }

  /** A line that stays. */
  line(text: string): void {
    clearLine();
    say(text);
  }
}

const etaOf = (seconds: number): string => (seconds > 0 ? `about ${formatSeconds(Math.ceil(seconds))} left` : '');

function describePoint({ config, outcome, reason, throughput, error }: Point): string {
  const what = `${config.level} ${config.phase} ${config.hiddenDim}/${config.heads}/${config.seqLen}/${config.batch}`;
  if (outcome !== 'measured') return `${what}  ${outcome}: ${reason}`;
  const speed = throughput ? formatMetric(throughput.tokensPerSecond, 'tokens/s') : '';
  return `${what}  ${speed}  error ${error ? formatNumber(error.relativeL2) : 'unknown'}`;
}
