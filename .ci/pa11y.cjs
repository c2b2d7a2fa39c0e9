// Accessibility of the book's pages, checked by axe; SCHEME is 1 for light and 0 for dark, as Chromium counts them.
module.exports = {
  defaults: {
    runners: ["axe"],
    // Axe cannot judge the contrast of a single character, or look into a frame, whose page is checked by itself.
    levelCapWhenNeedsReview: "warning",
    concurrency: 1, // colours of pages in the background may not be final
    viewport: { width: 1280, height: 5000 }, // so that no part of the sidebar is hidden
    wait: 500, // milliseconds, until colours no longer change
    timeout: 900000, // milliseconds: axe looks at each word of a program
    chromeLaunchConfig: { args: ["--no-sandbox", `--blink-settings=preferredColorScheme=${process.env.SCHEME}`] },
  },
};
