import { setTimeout as after } from 'node:timers/promises';
import { expect, test, vi } from 'vitest';
import { onInterrupt } from '../../src-main/hosts/cli/exit.ts';
import { until } from '../load.ts';

test('an interrupt, its echo and a second one; the echo of one that ended everything is swallowed for a moment', async () => {
  const usual = process.listenerCount('SIGINT');
  const heard = { onStop: vi.fn(), onCancel: vi.fn() };
  const release = onInterrupt(heard);
  process.emit('SIGINT');
  process.emit('SIGINT');
  expect(heard.onStop).toHaveBeenCalledTimes(1);
  expect(heard.onCancel).not.toHaveBeenCalled();
  await after(300);
  process.emit('SIGINT');
  expect(heard.onCancel).toHaveBeenCalledTimes(1);
  release();
  expect(process.listenerCount('SIGINT')).toBe(usual + 1);
  process.emit('SIGINT');
  expect(heard.onCancel).toHaveBeenCalledTimes(1);
  await until(() => expect(process.listenerCount('SIGINT')).toBe(usual));
});

test('without an interrupt nothing is left to listen', () => {
  const usual = process.listenerCount('SIGINT');
  onInterrupt({ onStop: vi.fn(), onCancel: vi.fn() })();
  expect(process.listenerCount('SIGINT')).toBe(usual);
});
