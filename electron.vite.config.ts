/** The desktop app: its main process, its preload script, and the window, which the web host serves as well. */
import { defineConfig } from 'electron-vite';
import renderer from './src-renderer/vite.config.ts';

export default defineConfig({
  main: { build: { outDir: 'dist/electron', rollupOptions: { input: 'src-main/hosts/electron/main.ts' } } },
  preload: {
    build: {
      outDir: 'dist/electron',
      // A sandboxed preload script cannot be a module.
      rollupOptions: { input: 'src-main/hosts/electron/preload.ts', output: { format: 'cjs' } },
    },
  },
  renderer: { ...renderer, build: { ...renderer.build, rollupOptions: { input: 'src-renderer/index.html' } } },
});
